"""How a corpus cuts its words, found by cutting its own text again."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from processors.examples import Example
from processors.text.word_cutting import WORD_UNITS, WordCutter

_MEASURED = 1000  # sentences on which the units are compared
_MOST_KEPT = 2000  # words
_CLOSING = re.compile(r"[,;:)\]}%…]|[.?!]+|['’][a-z]{0,2}|n['’]t", re.IGNORECASE)
_OPENING = re.compile(r"[(\[{]")


class LearnedCutter(NamedTuple):
    """How raw text is cut as a corpus is.

    Args:
        cutter: the best that was found.
        share: of the corpus's sentences, as they are or with words joined by spaces, those that it cuts alike.
        written_share: the same, if punctuation is attached to words as in `as_written`.
    """

    cutter: WordCutter
    share: float
    written_share: float


def learn_cutter(examples: Sequence[Example], reading: WordCutter, units: Sequence[str] = WORD_UNITS) -> LearnedCutter:
    """Finds the unit that cuts most words as the corpus does, and the words that must be kept whole with it.

    Args:
        examples: sentences of the training split.
        reading: the cutter with which the corpus was read; it is the result if the files have text instead of words.
        units: the units to choose from; of equally good ones the first is taken.
    """
    if not any(example.words_given for example in examples):
        return LearnedCutter(reading, 1.0, 1.0)
    measured = examples[:: 1 + len(examples) // _MEASURED]
    texts = [(example.text or "", example.offsets or []) for example in measured] + list(map(as_written, measured))
    unit = max(units, key=lambda unit: _words_found(WordCutter(unit), texts))
    cutter = _with_kept_words(WordCutter(unit), examples)
    return LearnedCutter(cutter, *shares_cut_alike(cutter, measured))


def shares_cut_alike(cutter: WordCutter, examples: Sequence[Example]) -> tuple[float, float]:
    """The shares of sentences that are cut into their own words: from the text as it is, and from `as_written`."""
    as_it_is = sum(list(cutter.spans(example.text or "")) == example.offsets for example in examples)
    written = sum(list(cutter.spans(text)) == offsets for text, offsets in map(as_written, examples))
    return as_it_is / max(1, len(examples)), written / max(1, len(examples))


def as_written(example: Example) -> tuple[str, list[tuple[int, int]]]:
    """The text without the spaces before ``, . ; : ? ! ) ] } % 's n't`` and after ``( [ {``.

    Files of words do not say where the original text had spaces. Their words joined by spaces are easier to cut than
    raw text is; this is closer to it.
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
    """How well the words that are cut are those of the corpus, as F1."""
    right = total = 0
    for text, offsets in texts:
        found = list(cutter.spans(text))
        right += len(set(found) & set(offsets))
        total += len(found) + len(offsets)
    return 2 * right / max(1, total)


def _with_kept_words(cutter: WordCutter, examples: Sequence[Example]) -> WordCutter:
    """Adds the words that the unit cuts and the corpus keeps whole at least twice, and more often than it cuts them."""
    cut: Counter[str] = Counter()
    for example in examples:
        text, offsets = as_written(example)
        found = set(cutter.spans(text))
        cut.update(text[start:end] for start, end in offsets if end - start > 1 and (start, end) not in found)
    whole = {tuple(cutter.split(word)[0]): word for word, count in cut.items() if count > 1}  # by its pieces
    lengths = {len(pieces) for pieces in whole} - {1}
    apart: Counter[str] = Counter()  # how often the pieces of such a word are words themselves
    for example in examples:
        for length in lengths:
            for pieces in zip(*(example.words[shift:] for shift in range(length)), strict=False):
                if pieces in whole:
                    apart[whole[pieces]] += 1
    kept = [word for pieces, word in whole.items() if len(pieces) > 1 and cut[word] > apart[word]]
    kept = sorted(kept, key=lambda word: -cut[word])[:_MOST_KEPT]
    return replace(cutter, kept=tuple(sorted(kept)))
