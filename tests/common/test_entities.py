"""Which of overlapping entities flat tags express."""

from hypothesis import given
from hypothesis import strategies as st

from common.entities import Entity, in_text_order, outermost

WORDS = 12
entity_lists = st.lists(
    st.builds(
        lambda kind, ends: Entity(kind, min(ends), max(ends)),
        st.sampled_from("AB"),
        st.tuples(st.integers(0, WORDS - 1), st.integers(0, WORDS - 1)),
    ),
    max_size=8,
)


def overlap(one: Entity, other: Entity) -> bool:
    return one.first_word <= other.last_word and other.first_word <= one.last_word


@given(entity_lists)
def test_of_overlapping_entities_the_longest_is_kept(entities: list[Entity]) -> None:
    kept = outermost(entities)
    assert kept == sorted(kept, key=lambda one: one.first_word)
    assert set(kept) <= set(entities)
    assert not any(overlap(one, other) for one in kept for other in kept if one is not other)
    for entity in set(entities) - set(kept):
        assert any(overlap(entity, other) and other.words >= entity.words for other in kept)


@given(entity_lists)
def test_in_text_order_each_entity_stands_once(entities: list[Entity]) -> None:
    ordered = in_text_order(entities)
    assert ordered == in_text_order(reversed(entities))
    assert (set(ordered), len(ordered)) == (set(entities), len(set(entities)))
    places = [(one.first_word, -one.words) for one in ordered]
    assert places == sorted(places)
