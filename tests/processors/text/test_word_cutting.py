"""Raw text into words, and words found in their text again."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.examples import join_words
from processors.text.word_cutting import WORD_UNITS, WordCutter, find_words


@pytest.mark.parametrize(
    ("text", "unit", "words"),
    [
        ("It's 7.7, no?", "auto", ["It", "'", "s", "7", ".", "7", ",", "no", "?"]),
        ("我爱 iPhone", "auto", list("我爱 iPhone")),
        ("我爱 iPhone", "word", ["我爱", "iPhone"]),
        ("a b", "char", ["a", " ", "b"]),
        ("我爱 iPhone 15.", "mixed", ["我", "爱", "iPhone", "15", "."]),
        ("我爱 it's", "auto_token", list("我爱 it's")),
        ("It's 7.7, no?", "auto_token", ["It", "'s", "7.7", ",", "no", "?"]),
        ("나는 간다", "auto", ["나는", "간다"]),
        ("ㅋㅋ 좋다", "auto", ["ㅋㅋ", "좋다"]),
        ("I love Paris 😀", "auto", ["I", "love", "Paris", "😀"]),
        ("a\u200bb \ud800", "word", ["a", "\u200b", "b", "\ud800"]),
        ("", "auto", []),
    ],
)
def test_text_is_cut_by_its_script_or_as_told(text: str, unit: str, words: list[str]) -> None:
    assert WordCutter(unit).split(text)[0] == words


@given(st.text(st.characters(), max_size=30), st.sampled_from(WORD_UNITS))
def test_no_character_but_white_space_is_lost_in_cutting(text: str, unit: str) -> None:
    words, offsets = WordCutter(unit).split(text)
    assert [text[start:end] for start, end in offsets] == words
    assert "".join("".join(words).split()) == "".join(text.split())
    assert all(end <= start for (_, end), (start, _) in pairwise(offsets))


@given(st.text(st.characters(), max_size=30), st.sampled_from(["char", "word"]))
def test_words_are_found_where_they_were_cut(text: str, unit: str) -> None:
    words, offsets = WordCutter(unit).split(text)
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
    assert WordCutter("word").split(text)[0] == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "1. The U.N.'s 6-3 win -- on 1996-08-22, J. Smith... it's 1,000 C$ (AT&T).",
            "1. The U.N. 's 6-3 win -- on 1996-08-22 , J. Smith ... it 's 1,000 C $ ( AT&T ) .",
        ),
        ("I don't. ISN'T IT BOB'S +1 or -2.5, .500", "I do n't . IS N'T IT BOB 'S +1 or -2.5 , .500"),
        ("@anna_b: #rome is great :-) http://a.b/c?d=1.", "@anna_b : #rome is great :-) http://a.b/c?d=1 ."),
        ("pre- and post-war -- 3 - 1-", "pre- and post-war -- 3 - 1 -"),
        ("(see p. 3): ((a)) 2-1", "( see p . 3 ) : ( ( a ) ) 2-1"),
    ],
)
def test_tokens_are_cut_as_corpora_have_them(text: str, words: str) -> None:
    assert " ".join(WordCutter("token").split(text)[0]) == words


@pytest.mark.parametrize(
    ("kept", "text", "words"),
    [
        (("Mrs.", "Inc."), "Mrs. Lee of Acme Inc. left.", "Mrs.|Lee|of|Acme|Inc.|left|."),
        (("U.S.", "U.S.-led"), "a U.S.-led U.S. force", "a|U.S.-led|U.S.|force"),  # the longest
        (("St.", "C$"), "August. C$5, St.Paul, C$", "August|.|C|$|5|,|St|.|Paul|,|C$"),  # whole words only
        (("New York",), "in New York now", "in|New York|now"),
    ],
)
@pytest.mark.parametrize("unit", ["word", "auto"])
def test_words_of_a_corpus_are_kept_whole(kept: tuple[str, ...], text: str, words: str, unit: str) -> None:
    assert WordCutter(unit, kept).split(text)[0] == words.split("|")
