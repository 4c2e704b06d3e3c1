"""Raw text into words: cut by script, or found again where the words are known."""

import re
from collections.abc import Sequence

from processors.examples import is_wide

_WORD = re.compile(r"\w+|[^\w\s]")


def split_text(text: str, word_unit: str = "auto") -> tuple[list[str], list[tuple[int, int]]]:
    """Cuts raw text into words and their character offsets.

    By characters (every one, spaces too, so that positions in the text are positions in the sequence), or by words:
    runs of letters and digits, and single signs.
    """
    if word_unit == "char" or (word_unit == "auto" and any(map(is_wide, text))):
        return list(text), [(i, i + 1) for i in range(len(text))]
    offsets = [match.span() for match in _WORD.finditer(text)]
    return [text[start:end] for start, end in offsets], offsets


def find_words(words: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """The places of these words in the text they were cut from; ``None`` where the text holds more than them."""
    offsets: list[tuple[int, int]] = []
    position = 0
    for word in words:
        while not text.startswith(word, position) and text[position : position + 1].isspace():
            position += 1
        if not text.startswith(word, position):
            return None
        offsets.append((position, position + len(word)))
        position += len(word)
    return None if text[position:].strip() else offsets
