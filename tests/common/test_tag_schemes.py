"""Tag schemes, proved by enumeration, by random entities, and against seqeval and conlleval's own rules."""

from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from common.entities import Entity
from common.tag_schemes import (
    MARKUPS,
    SCHEMES,
    TRAINED_MARKUPS,
    MixedSchemesError,
    TagScheme,
    detect_scheme,
    entities_to_tags,
    join_tag,
    legal_transitions,
    split_tag,
    tag_pairs,
    tag_set,
    tags_to_entities,
)
from tests.tags import convert_tags, illegal_positions

each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
TYPES = ["PER", "LOC", "work-of-art", "-", "工作", ""]
SENTENCE = [Entity("P", 0, 1), Entity("P", 2, 2), Entity("L", 4, 6), Entity("P", 7, 7)]
WRITTEN = {
    "IOB1": "I-P I-P B-P O I-L I-L I-L I-P",
    "IOB2": "B-P I-P B-P O B-L I-L I-L B-P",
    "IOE1": "I-P E-P I-P O I-L I-L I-L I-P",
    "IOE2": "I-P E-P E-P O I-L I-L E-L E-P",
    "BIOS": "B-P I-P S-P O B-L I-L I-L S-P",
    "BIOES": "B-P E-P S-P O B-L I-L E-L S-P",
    "BMES": "B-P E-P S-P O B-L M-L E-L S-P",
    "BILOU": "B-P L-P U-P O B-L I-L L-L U-P",
}


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[Entity], int]:
    """Entities that often touch, and the number of words they lie in."""
    entities, position = [], 0
    for gap, length, entity_type in draw(
        st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4), st.sampled_from(TYPES)), max_size=8)
    ):
        start = position + gap
        position = start + length
        entities.append(Entity(entity_type, start, position - 1))
    return entities, position + draw(st.integers(0, 2))


def any_tags(prefixes: str, types: Sequence[str] = ("A", "B-C")) -> st.SearchStrategy[list[str]]:
    """Sequences without any regard to a scheme."""
    return st.lists(st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in types)]), max_size=12)


def conlleval_chunks(tags: Sequence[str]) -> list[Entity]:
    """Chunks by the rules of conlleval's startOfChunk and endOfChunk, S being a chunk of length 1."""
    letters = str.maketrans("MLU", "IES")
    chunks, start = [], 0
    before, type_before = "O", ""
    for position, tag in enumerate([*tags, "O"]):
        now, type_now = tag[0].translate(letters), tag[2:]
        other_type = type_before != type_now
        ended = before + now in {"BB", "BS", "BO", "IB", "IS", "IO"} or before in "ES"
        if ended or (before != "O" and other_type):
            chunks.append(Entity(type_before, start, position - 1))
        started = now in "BS" or before + now in {"EE", "EI", "SE", "SI", "OE", "OI"}
        if started or (now != "O" and other_type):
            start = position
        before, type_before = now, type_now
    return chunks


def pair_counts(sentences: Sequence[Sequence[str]]) -> Counter[tuple[str, str]]:
    return Counter(pair for tags in sentences for pair in tag_pairs(tags))


@each_scheme
def test_a_sentence_is_written_as_the_scheme_has_it(scheme: TagScheme) -> None:
    assert entities_to_tags(SENTENCE, 8, scheme) == WRITTEN[scheme.name].split()


@each_scheme
def test_a_written_sentence_is_read_back(scheme: TagScheme) -> None:
    assert tags_to_entities(WRITTEN[scheme.name].split()) == SENTENCE


@each_scheme
@given(sentence=sentences())
def test_entities_survive_writing_and_reading(scheme: TagScheme, sentence: tuple[list[Entity], int]) -> None:
    entities, length = sentence
    assert tags_to_entities(entities_to_tags(entities, length, scheme)) == entities


@each_scheme
@given(sentence=sentences())
def test_conversion_to_any_scheme_and_back_changes_nothing(
    scheme: TagScheme, sentence: tuple[list[Entity], int]
) -> None:
    tags = entities_to_tags(*sentence, scheme)
    for other in SCHEMES.values():
        converted = convert_tags(tags, other)
        assert converted == entities_to_tags(*sentence, other)
        assert convert_tags(converted, scheme) == tags


@each_scheme
@given(sentence=sentences())
def test_written_tags_are_legal_and_in_the_tag_set(scheme: TagScheme, sentence: tuple[list[Entity], int]) -> None:
    tags = entities_to_tags(*sentence, scheme)
    assert illegal_positions(tags, scheme) == []
    assert set(tags) <= set(tag_set(TYPES, scheme))


@given(tags=any_tags("BIESMLU", ("A", "B-C", "")))
def test_ill_formed_tags_keep_their_entities_through_every_scheme(tags: list[str]) -> None:
    tags = [tag.rstrip("-") for tag in tags]
    for scheme in SCHEMES.values():
        assert tags_to_entities(convert_tags(tags, scheme)) == tags_to_entities(tags)


@given(sentence=sentences())
def test_the_order_in_which_entities_are_given_does_not_matter(sentence: tuple[list[Entity], int]) -> None:
    entities, length = sentence
    assert entities_to_tags(entities[::-1], length, SCHEMES["IOB1"]) == entities_to_tags(
        entities, length, SCHEMES["IOB1"]
    )


@pytest.mark.parametrize(
    "entities",
    [
        [Entity("A", 1, 0)],
        [Entity("A", 2, 0)],
        [Entity("A", -1, 0)],
        [Entity("A", 2, 3)],
        [Entity("A", 0, 1), Entity("B", 1, 2)],
        [Entity("A", 0, 2), Entity("B", 1, 1)],
    ],
    ids=["empty", "reversed", "before", "beyond", "overlapping", "nested"],
)
def test_entities_that_tags_cannot_hold_are_refused(entities: list[Entity]) -> None:
    with pytest.raises(ValueError, match=r"Entity\(.*3 words"):
        entities_to_tags(entities, 3, SCHEMES["IOB2"])


@given(tags=any_tags("BIES"))
def test_reading_equals_seqeval(tags: list[str]) -> None:
    assert tags_to_entities(tags) == get_entities(tags)


@given(tags=any_tags("BIESMLU"))
def test_reading_equals_the_rules_of_conlleval(tags: list[str]) -> None:
    assert tags_to_entities(tags) == conlleval_chunks(tags)


@pytest.mark.parametrize("length", range(5))
def test_reading_equals_the_rules_of_conlleval_on_all_short_sequences(length: int) -> None:
    for tags in product(["O", "B-X", "I-X", "E-X", "S-X", "I-Y", "E-Y"], repeat=length):
        assert tags_to_entities(tags) == conlleval_chunks(tags)


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("B-X", [("X", 0, 0)]),
        ("I-X O", [("X", 0, 0)]),
        ("B-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)]),
        ("B-X S-X I-X", [("X", 0, 0), ("X", 1, 1), ("X", 2, 2)]),
        ("B-a-b I-a-b I-a", [("a-b", 0, 1), ("a", 2, 2)]),
        ("B I O B", [("", 0, 1), ("", 3, 3)]),
        ("O", []),
        ("", []),
    ],
)
def test_odd_sequences_have_one_meaning(tags: str, entities: list[tuple[str, int, int]]) -> None:
    assert tags_to_entities(tags.split()) == entities


@pytest.mark.parametrize(("tag", "parts"), [("O", ("O", "")), ("B", ("B", "")), ("I-a-b", ("I", "a-b"))])
def test_a_tag_splits_at_its_first_hyphen(tag: str, parts: tuple[str, str]) -> None:
    assert split_tag(tag) == parts
    assert join_tag(*parts) == tag


@pytest.mark.parametrize("tag", ["", "-", "X", "PER", "b-PER", "B-", "O-PER", "BPER", "B_PER", "[SEP]", " O"])
def test_what_is_no_tag_is_refused_by_name(tag: str) -> None:
    with pytest.raises(ValueError, match="is not a tag: expected O or one of"):
        split_tag(tag)


@each_scheme
def test_every_scheme_is_detected(scheme: TagScheme) -> None:
    assert detect_scheme(pair_counts([WRITTEN[scheme.name].split()])) == scheme


@each_scheme
@given(corpus=st.lists(sentences(), max_size=4))
def test_a_corpus_is_legal_in_the_scheme_detected(scheme: TagScheme, corpus: list[tuple[list[Entity], int]]) -> None:
    written = [entities_to_tags(*sentence, scheme) for sentence in corpus]
    detected = detect_scheme(pair_counts(written))
    assert all(illegal_positions(tags, detected) == [] for tags in written)


@pytest.mark.parametrize(
    ("scheme", "slip"), [("IOB2", "I-P O"), ("IOB1", "B-P O"), ("IOE2", "I-P O"), ("IOE1", "E-P O")]
)
def test_a_few_slips_do_not_change_the_scheme_detected(scheme: str, slip: str) -> None:
    assert detect_scheme(pair_counts([WRITTEN[scheme].split()] * 3 + [slip.split()])).name == scheme


def test_a_corpus_without_entities_is_taken_for_iob2() -> None:
    assert detect_scheme(pair_counts([["O", "O"], []])).name == "IOB2"


@pytest.mark.parametrize("tags", ["B-X M-X E-X I-X", "B-X L-X S-X", "B-X E-X U-X", "B-X I-X M-X"])
def test_prefixes_of_several_schemes_are_refused(tags: str) -> None:
    prefixes = ", ".join(sorted({tag[0] for tag in tags.split()}))
    with pytest.raises(MixedSchemesError, match=f"prefixes {prefixes} do not belong to one"):
        detect_scheme(pair_counts([tags.split()]))


@each_scheme
def test_a_sequence_is_legal_exactly_if_rewriting_leaves_it_alone(scheme: TagScheme) -> None:
    tags = tag_set(["X", "Y-Z"], scheme)
    matrix = legal_transitions(tags, scheme)
    start, end = len(tags), len(tags) + 1
    for length in range(5):
        for path in product(range(len(tags)), repeat=length):
            sequence = [tags[index] for index in path]
            legal = convert_tags(sequence, scheme) == sequence
            assert (not illegal_positions(sequence, scheme)) == legal, sequence
            assert matrix[[start, *path], [*path, end]].all() == legal, sequence


@each_scheme
def test_nothing_leads_to_the_start_or_away_from_the_end(scheme: TagScheme) -> None:
    matrix = legal_transitions(tag_set(["X"], scheme), scheme)
    assert matrix.dtype == np.bool_
    assert matrix.shape == (len(scheme.prefixes) + 3,) * 2
    assert not matrix[:, -2].any()
    assert not matrix[-1].any()


def test_transitions_follow_the_order_of_the_tags_given() -> None:
    matrix = legal_transitions(["I-X", "O", "B-X"], SCHEMES["IOB2"])
    expected = [[1, 1, 1, 0, 1], [0, 1, 1, 0, 1], [1, 1, 1, 0, 1], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0]]
    assert matrix.astype(int).tolist() == expected


@pytest.mark.parametrize(
    ("tags", "scheme", "positions"),
    [
        ("I-X O", "BIOES", [0, 1]),
        ("B-X", "BIOES", [1]),
        ("B-X I-X B-X E-X", "BIOES", [2]),
        ("O I-X", "IOB2", [1]),
        ("B-X I-Y", "IOB2", [1]),
        ("B-X I-X", "IOB1", [0]),
        ("", "BMES", []),
    ],
)
def test_illegal_tags_are_found_where_they_stand(tags: str, scheme: str, positions: list[int]) -> None:
    assert illegal_positions(tags.split(), SCHEMES[scheme]) == positions


def test_tags_of_another_scheme_are_illegal() -> None:
    assert illegal_positions(["B-X", "M-X", "M-X", "E-X"], SCHEMES["BIOES"]) != []


def test_the_tag_set_begins_with_o_and_is_grouped_by_type() -> None:
    assert tag_set(["P", "a-b", ""], SCHEMES["BIOS"]) == [
        "O",
        "B-P",
        "I-P",
        "S-P",
        "B-a-b",
        "I-a-b",
        "S-a-b",
        "B",
        "I",
        "S",
    ]


def test_markups_are_the_internal_schemes() -> None:
    assert set(MARKUPS) - set(TRAINED_MARKUPS) == {"iob1"}  # of models from elsewhere
    assert {markup: MARKUPS[markup].name for markup in TRAINED_MARKUPS} == {
        "bio": "IOB2",
        "bios": "BIOS",
        "bioes": "BIOES",
        "bmes": "BMES",
        "bilou": "BILOU",
    }
