"""Small scored documents."""

from analysis.documents import ScoredDocument
from common.entities import Entity


def spans(text: str) -> list[Entity]:
    """``"PER 0 1, LOC 3 3"``: type, first and last word."""
    parts = [part.split() for part in text.split(",") if part.strip()]
    return [Entity(name, int(start), int(end)) for name, start, end in parts]


def scored(gold: str, predicted: str, words: str = "a b c d e f g h i j", guid: str = "1") -> ScoredDocument:
    return ScoredDocument(guid, words.split(), spans(gold), spans(predicted))
