"""Raw text into words, and words found in their text again."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.examples import join_words
from processors.word_cutting import find_words, split_text, word_unit_of


@pytest.mark.parametrize(
    ("text", "unit", "words"),
    [
        ("It's 7.7, no?", "auto", ["It", "'", "s", "7", ".", "7", ",", "no", "?"]),
        ("我爱 iPhone", "auto", list("我爱 iPhone")),
        ("我爱 iPhone", "word", ["我爱", "iPhone"]),
        ("a b", "char", ["a", " ", "b"]),
        ("나는 간다", "auto", ["나는", "간다"]),
        ("ㅋㅋ 좋다", "auto", ["ㅋㅋ", "좋다"]),
        ("I love Paris 😀", "auto", ["I", "love", "Paris", "😀"]),
        ("a\u200bb \ud800", "word", ["a", "\u200b", "b", "\ud800"]),
        ("", "auto", []),
    ],
)
def test_text_is_cut_by_its_script_or_as_told(text: str, unit: str, words: list[str]) -> None:
    assert split_text(text, unit)[0] == words


@given(st.text(st.characters(), max_size=30), st.sampled_from(["auto", "char", "word", "token"]))
def test_no_character_but_white_space_is_lost_in_cutting(text: str, unit: str) -> None:
    words, offsets = split_text(text, unit)
    assert [text[start:end] for start, end in offsets] == words
    assert "".join("".join(words).split()) == "".join(text.split())
    assert all(end <= start for (_, end), (start, _) in pairwise(offsets))


@given(st.text(st.characters(), max_size=30), st.sampled_from(["char", "word"]))
def test_words_are_found_where_they_were_cut(text: str, unit: str) -> None:
    words, offsets = split_text(text, unit)
    assert find_words(words, text) == offsets


@given(st.lists(st.text(st.characters(exclude_categories=["Zs", "Cc", "Zl", "Zp"]), min_size=1, max_size=4)))
def test_words_are_found_where_they_were_joined(words: list[str]) -> None:
    text, offsets = join_words(words)
    assert find_words(words, text) == offsets


@pytest.mark.parametrize("text", ["Anna met", "Bob Anna", "Anna, Bob", "AnnaBobby", ""])
def test_words_of_another_text_are_not_found(text: str) -> None:
    assert find_words(["Anna", "Bob"], text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (unicodedata.normalize("NFD", "Zoë née"), ["Zoe\u0308", "ne\u0301e"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("שָׁלוֹם!", ["שָׁלוֹם", "!"]),
        ("❤\ufe0f ok", ["❤\ufe0f", "ok"]),
        ("\u0301a", ["\u0301a"]),
    ],
)
def test_a_combining_mark_stays_with_its_letter(text: str, words: list[str]) -> None:
    assert split_text(text, "word")[0] == words


@pytest.mark.parametrize(
    ("counts", "unit"),
    [
        ((1000, 0, 0, 1000, 0), "char"),  # characters of Chinese
        ((1000, 30, 0, 1000, 30), "char"),  # and a number now and then
        ((1000, 800, 0, 0, 0), "word"),  # English
        ((1000, 800, 0, 20, 16), "word"),  # in which a Chinese character is quoted
        ((1000, 500, 20, 400, 2), "auto"),  # Chinese by characters and English by words
        ((1000, 600, 0, 1000, 600), "word"),  # Chinese in words
        ((1000, 800, 30, 0, 0), "token"),  # English that was tokenised
    ],
)
def test_the_unit_is_that_of_the_corpus(counts: tuple[int, int, int, int, int], unit: str) -> None:
    assert word_unit_of(*counts) == unit


def test_tokens_are_cut_as_corpora_have_them() -> None:
    text = "1. The U.N.'s 6-3 win -- on 1996-08-22, J. Smith... it's 1,000 C$ (AT&T)."
    assert " ".join(split_text(text, "token")[0]) == (
        "1. The U.N. 's 6-3 win -- on 1996-08-22 , J. Smith ... it 's 1,000 C $ ( AT&T ) ."
    )
