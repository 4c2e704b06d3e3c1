"""Whether two variants differ by more than the choice of documents explains."""

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


@dataclass
class Variant:
    """Runs of one kind.

    Args:
        name: what the folders' names share.
        counts: ``(S, D, 3)`` right, predicted and gold entities, by run and document.
    """

    name: str
    counts: NDArray[np.int64]

    def scores(self, score: str) -> NDArray[np.float64]:
        """``(S,)`` scores of the runs."""
        return precision_recall_f1(self.counts.sum(1))[:, SCORES.index(score)]

    @property
    def mean_counts(self) -> NDArray[np.float64]:
        """``(D, 3)`` counts of the documents, the mean over runs."""
        return self.counts.mean(0)


def expand_patterns(patterns: Iterable[str]) -> list[Path]:
    """The folders that are named, or match a pattern, each once.

    Raises:
        ValueError: there is no such folder.
    """
    folders: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        start = Path(path.anchor)
        matches = [path] if path.is_dir() else sorted(start.glob(str(path.relative_to(start))))
        found = [match for match in matches if match.is_dir()]
        if not found:
            raise ValueError(f"{pattern}: there is no such folder")
        folders |= dict.fromkeys(found)
    return list(folders)


def load_variants(folders: Sequence[Path], split: str) -> list[Variant]:
    """Reads the counts of all runs, in the order in which the variants are named.

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
    """The path without its seed: ``outputs/crf_seed3`` and ``outputs/crf/seed3`` are both of ``outputs/crf``."""
    name = _SEED_SUFFIX.sub("", folder.name)
    return folder.with_name(name) if name else folder.parent


Counts = NDArray[np.float64]


@dataclass
class Difference:
    """How much higher ``first`` scores than ``second``.

    Args:
        value: of the scores over all runs' documents together.
        low, high: 95 % interval, by a paired bootstrap over documents.
        p: of a paired permutation test.
        adjusted_p: the same, after Holm, for all differences that are looked at together.
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
    """All pairs of variants, or all with the baseline."""
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
    """Two-sided p of the difference, were each document's two results given to the variants by the toss of a coin.

    Approximate randomisation (Noreen 1989; Yeh 2000), with the count of Phipson and Smyth (2010): never zero.
    Documents with equal pairs of results are tossed together, by one binomial draw.

    Args:
        first, second: ``(D, 3)`` counts of two variants.
        column: which of `analysis.comparison.SCORES`.
    """
    both = np.hstack([first, second])
    observed = abs(_difference(both.sum(0), column))
    kinds, sizes = np.unique(both[(first != second).any(1)], axis=0, return_counts=True)  # (K, 6), (K,)
    change = np.hstack([kinds[:, 3:], kinds[:, :3]]) - kinds  # what swapping a document does
    generator = np.random.default_rng(seed)
    as_far = 0
    for some in batches(resamples, max(1, len(kinds))):
        swapped = generator.binomial(sizes, 0.5, (some, len(sizes)))  # (R, K)
        tossed = _difference(both.sum(0) + swapped @ change, column)
        as_far += int((abs(tossed) >= observed - 1e-12).sum())
    return (1 + as_far) / (1 + resamples)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values, which bound the chance of a single false finding among all (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(np.argsort(ps, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def _difference(sums: Counts, column: int) -> NDArray[np.float64]:
    """``(..., 6)`` sums of two variants -> ``(...)`` by how much the first scores higher."""
    return precision_recall_f1(sums[..., :3])[..., column] - precision_recall_f1(sums[..., 3:])[..., column]
