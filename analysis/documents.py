"""Gold and predicted entities per document: counts, file format, and the entities of the train split."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.entities import Entity
from processors.corpus import Corpus
from processors.formats.writers import FORMAT_VERSION, json_line


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
