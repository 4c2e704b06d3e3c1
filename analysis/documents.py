"""Gold and predicted entities per document: their file format, their counts, and intervals of scores over documents.

Documents with equal counts are interchangeable, so a bootstrap resample only draws how many there are of each kind: one
multinomial draw over a few hundred kinds instead of one draw per document.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.entities import Entity
from processors.corpus import Corpus
from processors.formats.writers import FORMAT_VERSION, json_line

RESAMPLES = 2000
_DRAWS_AT_ONCE = 2**22  # bounds memory

Counts = NDArray[np.float64] | NDArray[np.int64]


class ScoredDocument(NamedTuple):
    """A text with its gold and predicted entities, and a confidence for each predicted entity."""

    guid: str
    words: list[str]
    gold: list[Entity]
    predicted: list[Entity]
    confidences: tuple[float, ...] = ()

    def surface(self, entity: Entity) -> str:
        """Text of an entity, with a space between words."""
        return " ".join(self.words[entity.first_word : entity.last_word + 1])


def count_entities(documents: Sequence[ScoredDocument]) -> NDArray[np.int64]:
    """Count correct, predicted and gold entities per document, ``(D, 3)``."""
    counts = [
        (len(set(document.gold) & set(document.predicted)), len(document.predicted), len(document.gold))
        for document in documents
    ]
    return np.array(counts, np.int64).reshape(-1, 3)


def digest_of(documents: Iterable[ScoredDocument]) -> str:
    """Hash of words and gold entities, which is equal if two models were scored on the same data."""
    found = hashlib.blake2b(digest_size=12)
    for document in documents:
        gold = [(kind, first, last + 1) for kind, first, last in document.gold]  # exclusive end, as in format 1
        found.update(json.dumps([document.words, gold]).encode())
    return found.hexdigest()


def write_documents(path: Path, documents: Iterable[ScoredDocument]) -> None:
    """Write JSON lines with ``format_version``, ``id``, ``words``, ``gold``, ``predicted`` and ``confidences``.

    An entity is ``{"type", "first_word", "last_word"}``.
    """
    with path.open("w", encoding="utf-8") as file:
        for document in documents:
            record = {"format_version": FORMAT_VERSION, "id": document.guid, **document._asdict()}
            del record["guid"]
            for side in ("gold", "predicted"):
                record[side] = [entity._asdict() for entity in record[side]]
            file.write(json_line(record) + "\n")


def read_documents(path: Path) -> list[ScoredDocument]:
    """Read the file of `write_documents`. In format 1, an entity is ``[type, first word, end]`` with exclusive end.

    Raises:
        ValueError: the file has a later format version.
    """
    documents = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            record = json.loads(line)
            version = record.get("format_version", 1)
            if version > FORMAT_VERSION:
                known = f"this version reads formats up to {FORMAT_VERSION}; update the project, or score the run again"
                raise ValueError(f"{path}:{number}: format_version {version}: {known}")
            gold, predicted = (
                [Entity(**one) if version > 1 else Entity(one[0], one[1], one[2] - 1) for one in record[side]]
                for side in ("gold", "predicted")
            )
            confidences = tuple(record.get("confidences", ()))
            documents.append(ScoredDocument(record["id"], record["words"], gold, predicted, confidences))
    return documents


def training_names(corpus: Corpus) -> frozenset[str] | None:
    """Texts of the entities in train; ``None`` if the corpus has no train split."""
    return corpus.surfaces("train") if corpus.has("train") else None


def precision_recall_f1(counts: Counts) -> NDArray[np.float64]:
    """Scores from correct, predicted and gold counts: ``(..., 3) -> (..., 3)``, 0 where the denominator is 0."""
    right, predicted, gold = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    pairs = ((right, predicted), (right, gold), (2 * right, predicted + gold))
    return np.stack([np.divide(part, whole, np.zeros_like(whole), where=whole > 0) for part, whole in pairs], axis=-1)


def resampled_sums(counts: Counts, resamples: int, seed: int) -> NDArray[np.float64]:
    """Sum ``counts`` over documents drawn with replacement: ``(D, N) -> (resamples, N)``."""
    if not len(counts):
        return np.zeros((resamples, counts.shape[1]))
    kinds, sizes = np.unique(counts, axis=0, return_counts=True)  # (K, N), (K,)
    generator = np.random.default_rng(seed)
    shares = sizes / sizes.sum()
    parts = [generator.multinomial(sizes.sum(), shares, some) @ kinds for some in batches(resamples, len(kinds))]
    return np.concatenate(parts).astype(np.float64)


def batches(resamples: int, kinds: int) -> Iterator[int]:
    """Yield the batch sizes for drawing resamples."""
    size = max(1, _DRAWS_AT_ONCE // kinds)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def central_interval(values: NDArray[np.float64], level: float = 0.95) -> NDArray[np.float64]:
    """Bounds of the central ``level`` of the values along the first axis: ``(2, ...)``."""
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)


def score_intervals(counts: Counts, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, list[float]]:
    """Compute 95 % percentile intervals (Efron and Tibshirani 1993, ch. 13) of precision, recall and F1.

    Args:
        counts: ``(D, 3)`` from `count_entities`.

    Returns:
        Lower and upper bound by score; empty for fewer than two documents.
    """
    if len(counts) < 2:
        return {}
    bounds = central_interval(precision_recall_f1(resampled_sums(counts, resamples, seed)))  # (2, 3)
    return dict(zip(("precision", "recall", "f1"), bounds.T.tolist(), strict=True))
