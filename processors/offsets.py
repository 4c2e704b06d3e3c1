"""Offsets as other programs count them, told in characters (code points) of a Python string.

Each function returns a table: entry ``i`` is the character before which offset ``i`` stands, -1 where it stands inside
one.
"""

from collections.abc import Callable, Sequence


def code_points(text: str) -> Sequence[int]:
    """Python's own count."""
    return range(len(text) + 1)


def utf16_units(text: str) -> Sequence[int]:
    """JavaScript's count: characters beyond U+FFFF, such as most emoji, are two."""
    table: list[int] = []
    for position, character in enumerate(text):
        table += [position, -1] if character > "\uffff" else [position]
    return [*table, len(text)]


def single_line_feeds(text: str) -> Sequence[int]:
    """The count before line ends were made those of Windows: ``\\r\\n`` is one."""
    return [i for i in range(len(text) + 1) if i == 0 or text[i - 1 : i + 1] != "\r\n"]


TABLES: dict[str, Callable[[str], Sequence[int]]] = {
    "code_point": code_points,
    "utf16": utf16_units,
    "line_feed": single_line_feeds,
}


def in_utf16(text: str, position: int) -> int:
    """How many UTF-16 units stand before a character."""
    return position + sum(character > "\uffff" for character in text[:position])
