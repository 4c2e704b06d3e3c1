"""Learning how a corpus cuts words, by cutting its own text again."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from processors.examples import Example
from processors.text.word_cutting import WORD_UNITS, WordCutter

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
