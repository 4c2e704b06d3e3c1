"""Load scored runs, group them into variants by seed, and test differences between variants for significance."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.documents import count_entities, digest_of, read_documents
from analysis.intervals import batches, central_interval, precision_recall_f1, resampled_sums
from common.run_files import RunFolder

SCORES = ("precision", "recall", "f1")
_SEED_SUFFIX = re.compile(r"[-_.]?seed[-_]?\d+$")

Counts = NDArray[np.float64]


@dataclass
class Variant:
    """Runs that differ only in their seed.

    Args:
        name: folder name without the seed.
        counts: ``(S, D, 3)`` number of correct, predicted and gold entities, by run and document.
    """

    name: str
    counts: NDArray[np.int64]

    def scores(self, score: str) -> NDArray[np.float64]:
        """Scores of the runs, ``(S,)``."""
        return precision_recall_f1(self.counts.sum(1))[:, SCORES.index(score)]

    @property
    def mean_counts(self) -> NDArray[np.float64]:
        """Counts per document, averaged over runs, ``(D, 3)``."""
        return self.counts.mean(0)


def expand_patterns(patterns: Iterable[str]) -> list[Path]:
    """Expand glob patterns to folders, without duplicates.

    Raises:
        ValueError: a pattern matches no folder.
    """
    folders: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        start = Path(path.anchor)
        matches = [path] if path.is_dir() else sorted(start.glob(str(path.relative_to(start))))
        found = [match for match in matches if match.is_dir()]
        if not found:
            raise ValueError(f"{pattern}: no such folder")
        folders |= dict.fromkeys(found)
    return list(folders)


def load_variants(folders: Sequence[Path], split: str) -> list[Variant]:
    """Read the counts of all runs; variants are in order of their first folder.

    Raises:
        ValueError: a run was not scored, or not on the same documents as the others.
    """
    groups: defaultdict[Path, list[NDArray[np.int64]]] = defaultdict(list)
    digests: dict[str, Path] = {}
    for folder in folders:
        documents = read_documents(_scored_file(folder, split))
        digests.setdefault(digest_of(documents), folder)
        groups[variant_of(folder)].append(count_entities(documents))
        if len(digests) > 1:
            first, other = digests.values()
            raise ValueError(f"{first} and {other} were scored on different documents; score both on the same data")
    names = [variant.name for variant in groups]
    return [
        Variant(path.name if names.count(path.name) == 1 else str(path), np.stack(counts))
        for path, counts in groups.items()
    ]


def _scored_file(folder: Path, split: str) -> Path:
    path = RunFolder(folder).documents(split)
    if not path.is_file():
        advice = f"score the run first, with {'--do_eval' if split == 'dev' else '--do_predict'}"
        others = [f"--split {other}" for other in ("dev", "test") if RunFolder(folder).documents(other).is_file()]
        raise ValueError(f"{folder} has no {path.name}; {' or '.join([advice, *others])}")
    return path


def variant_of(folder: Path) -> Path:
    """Path without its seed: ``outputs/crf`` for ``outputs/crf_seed3`` and ``outputs/crf/seed3``."""
    name = _SEED_SUFFIX.sub("", folder.name)
    return folder.with_name(name) if name else folder.parent


@dataclass
class Difference:
    """Difference in score between two variants, ``first - second``.

    Args:
        value: difference of the scores over the documents of all runs.
        low, high: 95 % interval from a paired bootstrap over documents.
        p: p value of a paired permutation test.
        adjusted_p: p value after Holm's correction for all differences that are tested together.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    p: float
    adjusted_p: float


def compare(
    variants: Sequence[Variant], score: str, resamples: int, seed: int, baseline: str | None = None
) -> list[Difference]:
    """Compare all pairs of variants, or all variants with the baseline."""
    pairs = [pair for pair in combinations(variants, 2) if baseline in (None, pair[0].name, pair[1].name)]
    pairs = [(one, other) if other.name == baseline else (other, one) for one, other in pairs]
    column = SCORES.index(score)
    tests = [permutation_test(one.mean_counts, other.mean_counts, column, resamples, seed) for one, other in pairs]
    differences = []
    for (first, second), p, adjusted in zip(pairs, tests, holm(tests), strict=True):
        both = np.hstack([first.mean_counts, second.mean_counts])
        value = float(_difference(both.sum(0), column))
        low, high = central_interval(_difference(resampled_sums(both, resamples, seed), column)).tolist()
        differences.append(Difference(first.name, second.name, value, low, high, p, adjusted))
    return differences


def permutation_test(first: Counts, second: Counts, column: int, resamples: int, seed: int) -> float:
    """Two-sided p value of the difference when the results of each document are swapped at random.

    Approximate randomisation (Noreen 1989; Yeh 2000), with the estimate of Phipson and Smyth (2010), which is never
    zero. Documents with equal pairs of results are swapped together, with one binomial draw.

    Args:
        first, second: ``(D, 3)`` counts of two variants.
        column: index into ``SCORES``.
    """
    both = np.hstack([first, second])
    observed = abs(_difference(both.sum(0), column))
    kinds, sizes = np.unique(both[(first != second).any(1)], axis=0, return_counts=True)  # (K, 6), (K,)
    change = np.hstack([kinds[:, 3:], kinds[:, :3]]) - kinds  # effect of swapping one document, (K, 6)
    generator = np.random.default_rng(seed)
    as_far = 0
    for some in batches(resamples, max(1, len(kinds))):
        swapped = generator.binomial(sizes, 0.5, (some, len(sizes)))  # (R, K)
        tossed = _difference(both.sum(0) + swapped @ change, column)
        as_far += int((abs(tossed) >= observed - 1e-12).sum())
    return (1 + as_far) / (1 + resamples)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p values to control the family-wise error rate (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(np.argsort(ps, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def _difference(sums: Counts, column: int) -> NDArray[np.float64]:
    """Difference in score from the sums of two variants: ``(..., 6) -> (...)``."""
    return precision_recall_f1(sums[..., :3])[..., column] - precision_recall_f1(sums[..., 3:])[..., column]
