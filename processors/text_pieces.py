"""A text of any length as pieces of bounded size, which overlap so that every word has its context."""

from collections.abc import Iterator
from dataclasses import dataclass

from processors.alignment import LONGEST_WORD
from processors.word_cutting import WordCutter

_PIECE = 32_768  # characters; a text up to this long is one piece
_CONTEXT = 1_024  # characters that a piece shares with its neighbour on each side


@dataclass(frozen=True)
class TextPiece:
    """Words of a text that are tagged together; a long text has several, which overlap.

    Args:
        words: what the tokenizer sees.
        offsets: characters of each word in the whole text.
        own_start, own_end: the words whose tags count; those around them are context.
        is_last: whether the text ends here.
    """

    words: list[str]
    offsets: list[tuple[int, int]]
    own_start: int
    own_end: int
    is_last: bool


def cut_into_pieces(text: str, cutter: WordCutter, size: int = _PIECE, context: int = _CONTEXT) -> Iterator[TextPiece]:
    """Cuts raw text into words, holding no more than a piece of it at once.

    Every word is owned by exactly one piece and, but at the ends of the text, has context on both sides there. A text
    without words is one piece without words.

    Args:
        size: characters of a piece at most, those of a very long word counted as far as they are read.
        context: characters of the text that a piece shows on each side of the words that it owns.
    """
    held: list[tuple[int, int]] = []
    length, own_start = 0, 0
    for span in cutter.spans(text):
        if held and length + _read_length(span) > size:
            own_end = _words_from_end(held, context)
            yield TextPiece(_words(text, held), list(held), own_start, own_end, is_last=False)
            first = _words_from_end(held[:own_end], context)
            held, own_start = held[first:], own_end - first
            length = sum(map(_read_length, held))
        held.append(span)
        length += _read_length(span)
    yield TextPiece(_words(text, held), held, own_start, len(held), is_last=True)


def _words_from_end(spans: list[tuple[int, int]], characters: int) -> int:
    """Where the last words begin that together have at most so many characters."""
    place = len(spans)
    while place and characters >= (length := _read_length(spans[place - 1])):
        characters -= length
        place -= 1
    return place


def _read_length(span: tuple[int, int]) -> int:
    return min(span[1] - span[0], LONGEST_WORD)


def _words(text: str, spans: list[tuple[int, int]]) -> list[str]:
    return [text[start : min(end, start + LONGEST_WORD)] for start, end in spans]
