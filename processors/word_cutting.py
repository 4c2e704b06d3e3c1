"""Raw text into words: cut by script, as a corpus has its words, or found again where the words are known."""

from collections.abc import Iterator, Sequence

import regex

from processors.examples import has_wide

WORD_UNITS = ("char", "word", "token", "auto")
_LETTERS = r"[\w\p{M}]+"
_SIGN = r"[^\w\s\p{M}]\p{M}*"  # a mark stays with the letter or sign that it changes
_CLITIC = r"['’](?:s|re|ve|d|m|ll)\b"
_WITH_POINT = r"(?:\p{L}\.){2,}|\b(?:\p{Lu}|\d{1,2})\.(?=\s+\p{Lu})"  # abbreviations, initials, numbers of a list
_JOINED = rf"{_LETTERS}(?:(?!{_CLITIC})[-.,'’/&:@+]+{_LETTERS})*"
_WORD = regex.compile(rf"{_LETTERS}|{_SIGN}")
_TOKEN = regex.compile(rf"{_WITH_POINT}|{_CLITIC}|{_JOINED}|([^\w\s\p{{M}}])\1+|{_SIGN}")
_INNER_SIGN = regex.compile(r"\w[^\w\s\p{M}]+\w")
_RARELY = 0.05
_OFTEN_JOINED = 0.005


def word_spans(text: str, word_unit: str) -> Iterator[tuple[int, int]]:
    """The character offsets of the words of a text, see `split_text`."""
    if word_unit == "char" or (word_unit == "auto" and has_wide(text)):
        return ((i, i + 1) for i in range(len(text)))
    return (match.span() for match in (_TOKEN if word_unit == "token" else _WORD).finditer(text))


def split_text(text: str, word_unit: str = "auto") -> tuple[list[str], list[tuple[int, int]]]:
    """Cuts raw text into words and their character offsets.

    By characters (every one, spaces too, so that positions in the text are positions in the sequence), or by words:
    runs of letters and digits, and single signs, each with the combining marks behind it. Tokens are words as corpora
    of English newspapers have them: signs within stay (``U.N.``, ``6-3``, ``1996-08-22``), a clitic is one (``'s``).

    Args:
        text: of any language.
        word_unit: ``char``, ``word``, ``token``, or ``auto``: characters where one is Chinese or Japanese, else words.
    """
    offsets = list(word_spans(text, word_unit))
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


def word_unit_of(words: int, long_words: int, joined_words: int, wide_words: int, long_wide_words: int) -> str:
    """The word unit by which raw text becomes words like those of a corpus.

    Args:
        words: how many there are.
        long_words: those of more than one character.
        joined_words: those with a sign within.
        wide_words, long_wide_words: the same, in sentences that hold a Chinese or Japanese character.
    """
    if long_words <= _RARELY * words:
        return "char"
    if wide_words and long_wide_words <= _RARELY * wide_words:
        return "auto"
    return "token" if joined_words > _OFTEN_JOINED * words else "word"


def has_inner_sign(word: str) -> bool:
    """Whether a sign stands between letters or digits of a word, as in ``6-3``."""
    return _INNER_SIGN.search(word) is not None
