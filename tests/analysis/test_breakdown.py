"""Scores of parts of the entities."""

import pytest

from analysis.metrics import Score
from analysis.pairs import breakdown, length_range, scores_by_length, scores_by_nesting, scores_by_novelty
from tests.analysis.documents import scored


@pytest.mark.parametrize(
    ("length", "name"),
    [
        (1, "1"),
        (2, "2"),
        (3, "3-4"),
        (4, "3-4"),
        (5, "5-8"),
        (8, "5-8"),
        (9, "9-16"),
        (16, "9-16"),
        (17, "17+"),
        (999, "17+"),
    ],
)
def test_lengths_fall_into_ranges_that_double(length: int, name: str) -> None:
    assert length_range(length) == name


def test_a_prediction_counts_in_the_part_of_its_own_length() -> None:
    documents = [scored("PER 0 0, LOC 2 4", "PER 0 0, LOC 2 2"), scored("PER 4 6", "PER 4 6")]
    assert scores_by_length(documents) == {"1": Score(0.5, 1.0, 2 / 3, 1), "3-4": Score(1.0, 0.5, 2 / 3, 2)}
    assert list(scores_by_length([scored("X 0 8, X 9 9", "")])) == ["1", "9-16"]


def test_names_that_train_has_are_apart_from_new_ones() -> None:
    documents = [
        scored("PER 0 1, LOC 3 3", "PER 0 1, ORG 3 3", words="dan lee in rome"),
        scored("LOC 0 0", "LOC 0 0, PER 1 1", words="oslo said"),
    ]
    parts = scores_by_novelty(documents, {"dan lee", "rome", "lee"})
    assert parts == {"seen in train": Score(0.5, 0.5, 0.5, 2), "unseen": Score(0.5, 1.0, 2 / 3, 1)}


def test_both_parts_are_there_even_when_empty() -> None:
    assert scores_by_novelty([], set()) == {"seen in train": Score(), "unseen": Score()}


def test_parts_add_up() -> None:
    documents = [scored("PER 0 1, LOC 3 3, PER 5 8", "PER 0 1, ORG 3 3, PER 6 8")]
    parts = breakdown(documents, lambda _, entity: entity.type)
    assert {name: score.support for name, score in parts.items()} == {"PER": 2, "LOC": 1, "ORG": 0}


def test_nested_entities_have_scores_of_their_own() -> None:
    nested = scored("PER 0 3, LOC 1 1, LOC 2 3, ORG 5 6", "PER 0 3, LOC 1 1, LOC 0 0, ORG 5 6, LOC 8 8")
    found = scores_by_nesting([nested])
    assert found is not None
    assert {name: (score.precision, score.recall, score.support) for name, score in found.items()} == {
        "all entities": (0.6, 0.75, 4),
        "outermost": (2 / 3, 1.0, 2),
        "inside another": (0.5, 0.5, 2),
    }
    same_words = scored("PER 0 3, LOC 0 3", "PER 0 3")
    assert scores_by_nesting([same_words]) is None
