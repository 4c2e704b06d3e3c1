"""Annotations become the ids of the tags that they are written in."""

import pickle

import pytest
from hypothesis import given

from common.entities import Annotation, Entity, in_text_order, outermost
from common.tag_schemes import IGNORED_LABEL, SCHEMES, TagEncoder, TagScheme, entities_to_tags, tag_set
from tests.common.test_entities import WORDS, entity_lists

each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


@each_scheme
@given(entities=entity_lists)
def test_ids_are_those_of_the_tags_of_the_outermost(scheme: TagScheme, entities: list[Entity]) -> None:
    encode: TagEncoder = pickle.loads(pickle.dumps(TagEncoder(tag_set("AB", scheme), scheme)))
    ordered = in_text_order(entities)
    tags = entities_to_tags(outermost(ordered), WORDS, scheme)
    assert [encode.tags[label] for label in encode([Annotation(WORDS, ordered)])[0]] == tags


@each_scheme
def test_what_is_not_known_and_padding_is_ignored(scheme: TagScheme) -> None:
    encode = TagEncoder(tag_set("A", scheme), scheme)
    known = Annotation(3, [Entity("A", 0, 1)], unannotated=[(1, 2)])
    labels = encode([known, Annotation(5, None), Annotation(0, [])])
    whole = encode.tags.index(entities_to_tags([Entity("A", 0, 1)], 3, scheme)[0])
    assert labels.tolist() == [[whole, *[IGNORED_LABEL] * 4], [IGNORED_LABEL] * 5, [IGNORED_LABEL] * 5]
    assert encode([Annotation(0, None)]).shape == (1, 1)


@each_scheme
def test_a_tag_that_is_no_label_is_refused(scheme: TagScheme) -> None:
    encode = TagEncoder(tag_set("A", scheme), scheme)
    with pytest.raises(ValueError, match=r"label '.-B' is not among the labels O, .-A"):
        encode([Annotation(2, [Entity("B", 0, 0)])])
