"""Which prediction stands for which gold entity."""

import random

import pytest

from analysis.pairs import KINDS, all_pairs, error_kinds, pair_entities, type_confusion
from common.entities import Entity
from tests.analysis.documents import scored, spans


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        ("PER 0 1", "PER 0 1", ["right"]),
        ("PER 0 1", "LOC 0 1", ["type"]),
        ("PER 0 1", "PER 0 2", ["boundary"]),
        ("PER 0 1", "LOC 1 2", ["type and boundary"]),
        ("PER 0 1", "PER 2 2", ["missed", "spurious"]),
        ("PER 0 3", "PER 0 0, PER 1 3", ["boundary", "spurious"]),
        ("PER 0 0, PER 1 3", "PER 0 3", ["missed", "boundary"]),
        ("PER 0 1, LOC 2 3", "PER 0 0, LOC 1 3", ["boundary", "boundary"]),
        ("", "", []),
    ],
)
def test_kinds_of_error(gold: str, predicted: str, kinds: list[str]) -> None:
    assert [pair.kind for pair in pair_entities(spans(gold), spans(predicted))] == kinds


def test_the_larger_share_wins_then_the_type_then_the_place() -> None:
    gold = spans("PER 0 3")
    assert pair_entities(gold, spans("PER 0 0, LOC 1 3"))[0].predicted == Entity("LOC", 1, 3)
    assert pair_entities(gold, spans("LOC 0 1, PER 2 3"))[0].predicted == Entity("PER", 2, 3)
    assert pair_entities(gold, spans("PER 0 1, PER 2 3"))[0].predicted == Entity("PER", 0, 1)


def random_spans(generator: random.Random) -> list[Entity]:
    borders = sorted(generator.sample(range(30), 2 * generator.randrange(8)))
    return [
        Entity(generator.choice("XYZ"), start, end - 1) for start, end in zip(borders[::2], borders[1::2], strict=True)
    ]


def test_every_entity_is_in_one_pair_and_equal_spans_are_together() -> None:
    generator = random.Random(0)
    for _ in range(500):
        gold, predicted = random_spans(generator), random_spans(generator)
        pairs = pair_entities(gold, predicted)
        assert [pair.gold for pair in pairs if pair.gold] == sorted(gold, key=lambda one: one.first_word)
        assert {pair.predicted for pair in pairs} - {None} == set(predicted)
        assert sum(pair.predicted is not None for pair in pairs) == len(predicted)
        assert error_kinds(pairs)["right"] == len(set(gold) & set(predicted))
        for pair in pairs:
            if pair.gold and pair.predicted:
                assert pair.gold.first_word <= pair.predicted.last_word
                assert pair.predicted.first_word <= pair.gold.last_word
        same = {one[1:] for one in gold} & {one[1:] for one in predicted}
        assert sum(pair.kind in ("right", "type") for pair in pairs) == len(same)


def test_kinds_are_counted_even_where_there_is_none() -> None:
    assert error_kinds([]) == dict.fromkeys(KINDS, 0)
    pairs = pair_entities(spans("PER 0 1, LOC 3 3"), spans("PER 0 1, LOC 5 5"))
    assert error_kinds(pairs) == dict.fromkeys(KINDS, 0) | {"right": 1, "missed": 1, "spurious": 1}


def test_types_are_confused_whatever_the_borders() -> None:
    documents = [
        scored("PER 0 1, LOC 3 4", "ORG 0 1, LOC 3 3"),
        scored("PER 0 0", "PER 0 0, ORG 4 4"),
        scored("X 0 0", ""),
    ]
    assert type_confusion(all_pairs(documents)) == {
        "types": ["LOC", "ORG", "PER", "X"],
        "matrix": [[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
        "missed": [0, 0, 0, 1],
        "spurious": [0, 1, 0, 0],
    }


def test_a_document_of_many_entities_is_no_burden() -> None:
    gold = [Entity("X", start, start + 1) for start in range(0, 100_000, 3)]
    predicted = [Entity("X", start, start) for start in range(0, 100_000, 3)]
    assert error_kinds(pair_entities(gold, predicted))["boundary"] == len(gold)
