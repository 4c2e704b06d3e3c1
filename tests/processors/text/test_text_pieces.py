"""Long texts in overlapping pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.text.word_cutting import WORD_UNITS, WordCutter, cut_into_pieces


@given(st.text(max_size=300), st.sampled_from(WORD_UNITS))
def test_every_word_is_owned_once_and_in_order(text: str, unit: str) -> None:
    pieces = list(cut_into_pieces(text, WordCutter(unit), size=40, context=8))
    owned = [span for piece in pieces for span in piece.offsets[piece.own_start : piece.own_end]]
    assert owned == WordCutter(unit).split(text)[1]
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for piece in pieces:
        assert piece.words == [text[start:end] for start, end in piece.offsets]
        assert sum(map(len, piece.words)) <= 40 or len(piece.words) == 1


def test_a_cut_has_context_on_both_sides() -> None:
    pieces = list(cut_into_pieces("ab " * 200, WordCutter("word"), size=60, context=10))
    assert len(pieces) > 5
    for before, after in pairwise(pieces):
        assert len(before.words) - before.own_end == 5
        assert after.own_start == 5


def test_a_text_of_usual_length_is_one_piece() -> None:
    (piece,) = cut_into_pieces("anna met bob " * 1000, WordCutter("word"))
    assert (piece.own_start, piece.own_end) == (0, 3000)


@pytest.mark.parametrize("text", ["", "   \n"])
def test_a_text_without_words_is_one_empty_piece(text: str) -> None:
    (piece,) = cut_into_pieces(text, WordCutter("word"))
    assert (piece.words, piece.is_last) == ([], True)


def test_of_a_huge_word_only_the_beginning_is_read() -> None:
    text = "x" * 5_000_000 + " anna"
    (piece,) = cut_into_pieces(text, WordCutter("word"))
    assert piece.offsets == [(0, 5_000_000), (5_000_001, 5_000_005)]
    assert len(piece.words[0]) < 1000
