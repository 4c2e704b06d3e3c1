"""Findings that are worth a sentence."""

import pytest

from analysis.analysis import suspicions
from analysis.pairs import all_pairs, type_confusion
from tests.analysis.documents import scored


@pytest.mark.parametrize(
    ("gold", "predicted", "parts"),
    [
        ("PER 0 0, LOC 2 2", "", ["only O is predicted, but there are 2 gold entities"]),
        ("PER 0 0, LOC 2 2, LOC 4 4", "PER 0 0", ["no entities are predicted of type LOC (2 in the gold data)"]),
        ("PER 0 0, LOC 2 2", "PER 0 0, PER 2 2", ["of type LOC (1 in the gold data)"]),
        ("PER 0 0", "PER 3 3", []),
        ("PER 0 0", "PER 0 0, LOC 3 3", []),  # a type without gold need not be predicted
        ("", "PER 0 0", []),
        ("", "", []),
    ],
)
def test_suspicions(gold: str, predicted: str, parts: list[str]) -> None:
    found = list(suspicions(type_confusion(all_pairs([scored(gold, predicted)]))))
    assert len(found) == len(parts)
    assert all(part in sentence for part, sentence in zip(parts, found, strict=True))
