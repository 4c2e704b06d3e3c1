"""Cutting raw text into words as a corpus has them, and long texts into pieces."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import regex

from processors.examples import WIDE, Example, has_wide
from processors.features.alignment import LONGEST_WORD

WORD_UNITS = ("char", "word", "token", "auto", "auto_token", "mixed")
_LETTERS = r"[\w\p{M}]+"
_SIGN = r"[^\w\s\p{M}]\p{M}*"  # a combining mark stays with its sign
_CLITIC = r"['’](?i:s|re|ve|d|m|ll)\b"
_NOT = r"(?i:n['’]t)\b"
_WORD = (_LETTERS, _SIGN)
_TOKEN = (
    r"(?:https?://|www\.)\S*[\w/]",
    r"(?<!\w)[@#]\w+",  # handles and hashtags
    r"(?<!\S)[:;=][-o'^]?[()\[\]{}DPpOo/\\|*]+(?!\S)|<3",  # emoticons
    r"(?:\p{L}\.){2,}|\b(?:\p{Lu}|\d{1,2})\.(?=\s+\p{Lu})",  # abbreviations, initials, list numbers
    _CLITIC,
    rf"\p{{L}}+?(?={_NOT})|{_NOT}",  # do n't
    r"(?<![\w.])[-+.]\d+(?:[.,]\d+)*",  # signed numbers
    rf"{_LETTERS}(?:(?!{_CLITIC})[-.,'’/&:@+]+{_LETTERS})*(?:-(?=\s))?",  # pre- and post-war
    r"([^\w\s\p{M}()\[\]{}])\1+",
    _SIGN,
)
_SCRIPTS = regex.compile(rf"[{WIDE}]|[^{WIDE}]+")


@dataclass(frozen=True)
class WordCutter:
    """Cuts raw text into words.

    Args:
        unit: ``char``: every character, including spaces, so that positions in the text and in the sequence are equal.
            ``word``: runs of letters and digits, and single signs, each with its combining marks.
            ``token``: words as in tokenised English corpora: signs within a word are kept (``U.N.``, ``6-3``,
            ``1996-08-22``), clitics are words (``'s``, ``n't``), URLs, @handles, #tags and emoticons are not cut.
            ``auto``, ``auto_token``: characters if any is Chinese or Japanese, otherwise words or tokens.
            ``mixed``: each Chinese or Japanese character is a word, the text between them is cut into tokens.
        kept: words that are not cut although the unit would, such as ``Mrs.``; ignored by ``char``.

    Raises:
        ValueError: the unit is unknown.
    """

    unit: str = "auto"
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.unit not in WORD_UNITS:
            raise ValueError(f"word unit {self.unit!r} is none of {', '.join(WORD_UNITS)}")

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the character offsets of the words, in order."""
        if self.unit == "char" or (self.unit.startswith("auto") and has_wide(text)):
            return ((i, i + 1) for i in range(len(text)))
        pattern = _pattern(self.unit in ("word", "auto"), self.kept)
        if self.unit == "mixed":
            return _spans_by_script(text, pattern)
        return (match.span() for match in pattern.finditer(text))

    def split(self, text: str) -> tuple[list[str], list[tuple[int, int]]]:
        """Return the words and their character offsets."""
        offsets = list(self.spans(text))
        return [text[start:end] for start, end in offsets], offsets


@lru_cache(maxsize=8)
def _pattern(plain: bool, kept: tuple[str, ...]) -> "regex.Pattern[str]":
    alternatives = _WORD if plain else _TOKEN
    if not kept:
        return regex.compile("|".join(alternatives))
    return regex.compile("|".join((r"(?<!\w)\L<kept>(?!\w)", *alternatives)), kept=kept)


def _spans_by_script(text: str, pattern: "regex.Pattern[str]") -> Iterator[tuple[int, int]]:
    for part in _SCRIPTS.finditer(text):
        if has_wide(part.group()):
            if not part.group().isspace():
                yield part.span()
        else:
            yield from (match.span() for match in pattern.finditer(text, *part.span()))


def find_words(words: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """Find the character offsets of words in their text; ``None`` if the text contains anything else."""
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


_PIECE = 32_768  # characters; shorter texts are one piece
_CONTEXT = 1_024  # characters of context on each side of a piece


@dataclass(frozen=True)
class TextPiece:
    """Words of a text that are tagged together; a long text has several overlapping pieces.

    Args:
        words: input of the tokenizer.
        offsets: character offsets of each word in the whole text.
        own_start, own_end: range of words whose tags are used; the others are context.
        is_last: whether this is the last piece of the text.
    """

    words: list[str]
    offsets: list[tuple[int, int]]
    own_start: int
    own_end: int
    is_last: bool


def cut_into_pieces(text: str, cutter: WordCutter, size: int = _PIECE, context: int = _CONTEXT) -> Iterator[TextPiece]:
    """Cut raw text into pieces of words, with only one piece in memory.

    Every word is owned by exactly one piece, which has context on both sides of it except at the ends of the text. A
    text without words is one empty piece.

    Args:
        size: maximum number of characters of a piece; of a very long word only the characters that are read count.
        context: characters of context on each side of the owned words.
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


def cut_into_lines(text: str, cutter: WordCutter) -> Iterator[TextPiece]:
    """Cut a text into its lines, and long lines into pieces. Lines without words are left out, but for one.

    Offsets count in the whole text.
    """
    held, position = TextPiece([], [], 0, 0, is_last=True), 0
    for line in text.split("\n"):
        for piece in cut_into_pieces(line, cutter) if line else ():
            if held.words and piece.words:
                yield replace(held, is_last=False)
            if piece.words:
                offsets = [(start + position, end + position) for start, end in piece.offsets]
                held = replace(piece, offsets=offsets, is_last=True)
        position += len(line) + 1
    yield held


def _words_from_end(spans: list[tuple[int, int]], characters: int) -> int:
    """Index of the first of the last words that have at most ``characters`` characters in total."""
    place = len(spans)
    while place and characters >= (length := _read_length(spans[place - 1])):
        characters -= length
        place -= 1
    return place


def _read_length(span: tuple[int, int]) -> int:
    return min(span[1] - span[0], LONGEST_WORD)


def _words(text: str, spans: list[tuple[int, int]]) -> list[str]:
    return [text[start : min(end, start + LONGEST_WORD)] for start, end in spans]


_MEASURED = 1000  # number of sentences used to compare the units
_MOST_KEPT = 2000  # maximum number of kept words
_CLOSING = re.compile(r"[,;:)\]}%…]|[.?!]+|['’][a-z]{0,2}|n['’]t", re.IGNORECASE)
_OPENING = re.compile(r"[(\[{]")


class LearnedCutter(NamedTuple):
    """The cutter that cuts raw text most like a corpus.

    Args:
        cutter: the best cutter found.
        share: fraction of sentences cut as in the corpus, from their text or their words joined by spaces.
        written_share: the same fraction with punctuation attached to words as in `as_written`.
    """

    cutter: WordCutter
    share: float
    written_share: float


def learn_cutter(examples: Sequence[Example], reading: WordCutter, units: Sequence[str] = WORD_UNITS) -> LearnedCutter:
    """Find the unit that cuts most words as the corpus does, and the words that it must not cut.

    Args:
        examples: sentences of the training split.
        reading: the cutter that read the corpus; it is returned if the files contain text instead of words.
        units: candidate units; ties go to the first.
    """
    if not any(example.words_given for example in examples):
        return LearnedCutter(reading, 1.0, 1.0)
    measured = examples[:: 1 + len(examples) // _MEASURED]
    texts = [(example.text or "", example.offsets or []) for example in measured] + list(map(as_written, measured))
    unit = max(units, key=lambda unit: _words_found(WordCutter(unit), texts))
    cutter = _with_kept_words(WordCutter(unit), examples)
    return LearnedCutter(cutter, *shares_cut_alike(cutter, measured))


def shares_cut_alike(cutter: WordCutter, examples: Sequence[Example]) -> tuple[float, float]:
    """Fractions of sentences that are cut into their own words, from the text as it is and from `as_written`."""
    as_it_is = sum(list(cutter.spans(example.text or "")) == example.offsets for example in examples)
    written = sum(list(cutter.spans(text)) == offsets for text, offsets in map(as_written, examples))
    return as_it_is / max(1, len(examples)), written / max(1, len(examples))


def as_written(example: Example) -> tuple[str, list[tuple[int, int]]]:
    """Remove the spaces before ``, . ; : ? ! ) ] } % 's n't`` and after ``( [ {``.

    Files of words do not tell where the original text had spaces. Words joined by spaces are easier to cut than raw
    text; this is closer to raw text.

    Returns:
        The text and the character offsets of the words.
    """
    text, offsets = example.text or "", example.offsets or []
    parts: list[str] = []
    places: list[tuple[int, int]] = []
    position, removed = 0, 0
    for (_, before), (start, end) in pairwise([(0, 0), *offsets]):
        gap, word, previous = text[before:start], text[start:end], text[position:before]
        if gap == " " and (_CLOSING.fullmatch(word) or _OPENING.fullmatch(previous)):
            gap, removed = "", removed + 1
        parts += (gap, word)
        places.append((start - removed, end - removed))
        position = start
    parts.append(text[offsets[-1][1] :] if offsets else text)
    return "".join(parts), places


def _words_found(cutter: WordCutter, texts: Iterable[tuple[str, list[tuple[int, int]]]]) -> float:
    """F1 of the cut words against the words of the corpus."""
    right = total = 0
    for text, offsets in texts:
        found = list(cutter.spans(text))
        right += len(set(found) & set(offsets))
        total += len(found) + len(offsets)
    return 2 * right / max(1, total)


def _with_kept_words(cutter: WordCutter, examples: Sequence[Example]) -> WordCutter:
    """Keep words that the unit cuts but the corpus keeps whole at least twice, and more often than it cuts them."""
    cut: Counter[str] = Counter()
    for example in examples:
        text, offsets = as_written(example)
        found = set(cutter.spans(text))
        cut.update(text[start:end] for start, end in offsets if end - start > 1 and (start, end) not in found)
    whole = {tuple(cutter.split(word)[0]): word for word, count in cut.items() if count > 1}  # keyed by pieces
    lengths = {len(pieces) for pieces in whole} - {1}
    apart: Counter[str] = Counter()  # how often the corpus cuts such a word
    for example in examples:
        for length in lengths:
            for pieces in zip(*(example.words[shift:] for shift in range(length)), strict=False):
                if pieces in whole:
                    apart[whole[pieces]] += 1
    kept = [word for pieces, word in whole.items() if len(pieces) > 1 and cut[word] > apart[word]]
    kept = sorted(kept, key=lambda word: -cut[word])[:_MOST_KEPT]
    return replace(cutter, kept=tuple(sorted(kept)))
