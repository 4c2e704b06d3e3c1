"""Units of character offsets: code points, UTF-16 units, and characters without carriage returns."""

from collections.abc import Callable, Sequence

OFFSET_UNITS = ("auto", "code_point", "utf16")


def code_points(text: str) -> Sequence[int]:
    """Table of offsets in code points, as Python counts."""
    return range(len(text) + 1)


def utf16_units(text: str) -> Sequence[int]:
    """Table of offsets as JavaScript counts: characters beyond U+FFFF, such as most emoji, are two units."""
    table: list[int] = []
    for position, character in enumerate(text):
        table += [position, -1] if character > "\uffff" else [position]
    return [*table, len(text)]


def single_line_feeds(text: str) -> Sequence[int]:
    """Table of offsets that count a Windows line end (``\\r\\n``) as one character."""
    return [i for i in range(len(text) + 1) if i == 0 or text[i - 1 : i + 1] != "\r\n"]


TABLES: dict[str, Callable[[str], Sequence[int]]] = {
    "code_point": code_points,
    "utf16": utf16_units,
    "line_feed": single_line_feeds,
}


def in_utf16(text: str, position: int) -> int:
    """Convert a character offset to UTF-16 units."""
    return position + sum(character > "\uffff" for character in text[:position])
