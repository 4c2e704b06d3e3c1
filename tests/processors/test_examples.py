"""Examples, how words are joined to a text, and how errors name their place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.entities import Entity
from processors.examples import DataError, Example, is_wide, join_words, without_lone_surrogates


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["Anna", "lives", "in", "Paris", "."], "Anna lives in Paris ."),
        (["我", "爱", "北", "京"], "我爱北京"),
        (["C", "S", "O", "L", "游", "戏"], "CSOL游戏"),
        (["我", "用", "iPhone", "手机"], "我用iPhone手机"),
        (["서울", "은", "크다"], "서울 은 크다"),
        (["東京", "タワー"], "東京タワー"),
        (["hello", "😀", "world"], "hello 😀 world"),
        ([], ""),
    ],
)
def test_words_are_joined_as_their_script_is_written(words: list[str], text: str) -> None:
    assert join_words(words)[0] == text


@given(st.lists(st.text(st.characters(), max_size=4), max_size=12))
def test_offsets_find_every_word_in_the_joined_text(words: list[str]) -> None:
    text, offsets = join_words(words)
    assert [text[start:end] for start, end in offsets] == words
    assert text.replace(" ", "") == "".join(words).replace(" ", "")


@pytest.mark.parametrize("character", "中あア、。　Ａ")
def test_chinese_and_japanese_are_wide(character: str) -> None:
    assert is_wide(character)


@pytest.mark.parametrize("character", ["a", "é", "я", "가", "ᄀ", "ㅋ", "😀", "⌚", "\u200b", "\ud800"])
def test_other_scripts_and_emoji_are_not_wide(character: str) -> None:
    assert not is_wide(character)


def test_an_example_joins_its_words_to_a_text() -> None:
    example = Example("train-0", ["New", "York"], [Entity("LOC", 0, 1)])
    assert (example.text, example.offsets) == ("New York", [(0, 3), (4, 8)])


def test_an_example_keeps_the_text_it_is_given() -> None:
    example = Example("a", ["New", "York"], text="New  York", offsets=[(0, 3), (5, 9)])
    assert (example.text, example.offsets) == ("New  York", [(0, 3), (5, 9)])


@pytest.mark.parametrize(("first", "last"), [(0, 2), (-1, 0), (1, 0), (2, 2)])
def test_what_is_said_of_an_example_lies_in_its_words(first: int, last: int) -> None:
    for said in ({"entities": [Entity("A", first, last)]}, {"unannotated": [(first, last)]}):
        with pytest.raises(ValueError, match=rf"dev-7: \[{first}, {last}\] lies outside the 2 words"):
            Example("dev-7", ["a", "b"], **said)


@pytest.mark.parametrize(("word_lines", "lines"), [([5, 7], [5, 7, 7]), ([], [5, 5, 5])])
def test_a_position_has_its_line_and_the_end_that_of_the_last_word(word_lines: list[int], lines: list[int]) -> None:
    example = Example("a", ["x", "y"], [], line=5, word_lines=word_lines)
    assert [example.line_of(position) for position in range(3)] == lines


@pytest.mark.parametrize(
    ("place", "message"), [((), "wrong"), (("a.txt",), "a.txt: wrong"), (("a.txt", 3), "a.txt:3: wrong")]
)
def test_an_error_begins_with_its_place(place: tuple[str, int], message: str) -> None:
    assert str(DataError("wrong", *place)) == message


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("Lena \ud83d met", ("Lena \ufffd met", 1)),
        ("\udc00\udc00a\ud800", ("\ufffd\ufffda\ufffd", 3)),
        ("😀 \ufffd", ("😀 \ufffd", 0)),
        ("", ("", 0)),
    ],
)
def test_lone_surrogates_are_replaced_one_for_one(text: str, mended: tuple[str, int]) -> None:
    assert without_lone_surrogates(text) == mended
