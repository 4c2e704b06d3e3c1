"""Runs in their folders, grouped to variants that differ in the seed only."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.scores.documents import count_entities, digest_of, read_documents
from tools.scores.intervals import precision_recall_f1

SCORES = ("precision", "recall", "f1")
_SEED_SUFFIX = re.compile(r"[-_.]?seed[-_]?\d+$")
_FILES = {"dev": "eval_documents.jsonl", "test": "test_documents.jsonl"}


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
    path = folder / _FILES[split]
    if not path.is_file():
        advice = f"score the run first, with {'--do_eval' if split == 'dev' else '--do_predict'}"
        others = [f"--split {other}" for other, file in _FILES.items() if (folder / file).is_file()]
        raise ValueError(f"{folder} has no {path.name}; {' or '.join([advice, *others])}")
    return path


def variant_of(folder: Path) -> Path:
    """The path without its seed: ``outputs/crf_seed3`` and ``outputs/crf/seed3`` are both of ``outputs/crf``."""
    name = _SEED_SUFFIX.sub("", folder.name)
    return folder.with_name(name) if name else folder.parent
