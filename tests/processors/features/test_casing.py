"""The casing of words, and the segment ids that tell it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from processors import Example, convert_examples_to_features
from processors.features.alignment import CASINGS, LOWER, MIXED, TITLE, UPPER, casing_of

SEGMENTS = (0, 5, 6, 7)


@pytest.mark.parametrize(
    ("casing", "words"),
    [
        (LOWER, ["rome", "1990s", "'s", "", "--", "中文", "ß", "ﬁ", "１"]),
        (TITLE, ["Rome", "I", "(Reuters", "Élan", "'Tis", "3M", "ǅ", "Σίσυφος"]),
        (UPPER, ["ROME", "U.S.", "F-16AB", "'S'S", "ΟΔΟΣ"]),
        (MIXED, ["iPhone", "McDonald", "Jean-Pierre", "eBAY", "USSRs"]),
    ],
)
def test_only_letters_count(casing: int, words: list[str]) -> None:
    assert [(word, casing_of(word)) for word in words] == [(word, casing) for word in words]


@given(st.text())
def test_every_text_has_a_casing_that_lower_case_takes_away(text: str) -> None:
    assert 0 <= casing_of(text) < CASINGS
    assert casing_of(text.lower().lower()) == LOWER


def test_the_pieces_of_a_word_tell_its_casing(bert: PreTrainedTokenizerBase) -> None:
    words = ["Anna", "met", "the", "QXZ", "iQ", "man"]
    dataset = convert_examples_to_features(
        [Example("x", words, None)], ["O"], 32, bert, cls_token_segment_id=9, casing_segment_ids=SEGMENTS
    )
    (feature,) = dataset
    starts = [*feature.word_positions.tolist(), len(feature.input_ids) - 1]
    told = [set(feature.segment_ids[begin:end]) for begin, end in pairwise(starts)]
    assert told == [{SEGMENTS[casing_of(word)]} for word in words]
    assert starts[4] - starts[3] == 3  # of several pieces
    assert feature.segment_ids[0] == 9
    assert feature.segment_ids[-1] == 0


def test_windows_of_a_long_text_tell_the_casing_of_the_words_that_they_show(bert: PreTrainedTokenizerBase) -> None:
    words = [word.title() if place % 3 == 0 else word for place, word in enumerate(["the", "man", "saw"] * 40)]
    dataset = convert_examples_to_features([Example("x", words, None)], ["O"], 20, bert, casing_segment_ids=SEGMENTS)
    assert len(dataset) > 5
    for feature in dataset:
        own = words[feature.first_word : feature.first_word + len(feature.word_positions)]
        assert feature.segment_ids[feature.word_positions].tolist() == [SEGMENTS[casing_of(word)] for word in own]


def test_batches_carry_it_to_the_encoder(bert: PreTrainedTokenizerBase) -> None:
    examples = [Example("x", ["the", "Man"], None), Example("y", ["HE"], None)]
    dataset = convert_examples_to_features(examples, ["O"], 20, bert, casing_segment_ids=SEGMENTS)
    assert dataset.collate(list(dataset))["token_type_ids"].tolist() == [[0, 0, 5, 0], [0, 6, 0, 0]]


def test_a_layout_that_does_not_tell_it_stores_nothing(bert: PreTrainedTokenizerBase) -> None:
    dataset = convert_examples_to_features([Example("x", ["Rome"], None)], ["O"], 20, bert)
    assert len(dataset.arrays["casings"]) == 0
    assert set(dataset[0].segment_ids) == {0}
