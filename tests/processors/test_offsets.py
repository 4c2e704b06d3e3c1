"""Other programs' counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.offset_units import TABLES, in_utf16


@pytest.mark.parametrize(
    ("unit", "text", "table"),
    [
        ("code_point", "a😀b", [0, 1, 2, 3]),
        ("utf16", "a😀b", [0, 1, -1, 2, 3]),
        ("utf16", "", [0]),
        ("line_feed", "a\r\nb\rc\n", [0, 1, 3, 4, 5, 6, 7]),
        ("line_feed", "\r\n\r\n", [0, 2, 4]),
        ("line_feed", "", [0]),
    ],
)
def test_offsets_stand_before_characters(unit: str, text: str, table: list[int]) -> None:
    assert list(TABLES[unit](text)) == table


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_utf16_is_what_the_encoder_counts(text: str) -> None:
    table = TABLES["utf16"](text)
    for position in range(len(text) + 1):
        units = len(text[:position].encode("utf-16-le")) // 2
        assert in_utf16(text, position) == units
        assert table[units] == position


@given(st.text("ab\r\n"))
def test_line_feeds_are_what_python_counts_in_text_files(text: str) -> None:
    table = TABLES["line_feed"](text)
    for offset, position in enumerate(table):
        assert text[:position].replace("\r\n", "\n") == text.replace("\r\n", "\n")[:offset]
    assert len(table) == len(text.replace("\r\n", "\n")) + 1
