"""Sentences of a document in a row, with separators: what a window shows around the sentence that it labels."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from processors.examples import Example
from processors.features.alignment import LOWER, WordPieces, casing_of


def groups_with_context(examples: Sequence[Example], with_context: bool) -> Iterator[range]:
    """Divide examples into runs of neighbours of the same document; without context or document, each is alone."""
    start = 0
    for document, group in groupby(examples, key=lambda example: example.document):
        end = start + sum(1 for _ in group)
        together = bool(document) and with_context
        yield from [range(start, end)] if together else (range(one, one + 1) for one in range(start, end))
        start = end


def separator_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token between sentences.

    Raises:
        ValueError: the tokenizer has no separator or end token.
    """
    for token_id in (tokenizer.sep_token_id, tokenizer.eos_token_id):
        if isinstance(token_id, int):
            return token_id
    raise ValueError(f"--document_context: {type(tokenizer).__name__} has no separator or end token")


class Passage(NamedTuple):
    """Consecutive sentences, with one separator between two of them.

    Args:
        ids: ``(T,)`` tokens.
        casings: ``(T,)`` casing of the word of each token; empty if it is not needed.
        starts: first token of each sentence.
        borders: tokens at which a word or a separator begins, and T.
        separator: id of the separator, which no word has.
    """

    ids: NDArray[np.int32]
    casings: NDArray[np.uint8]
    starts: list[int]
    borders: NDArray[np.int64]
    separator: int | None = None

    @classmethod
    def of(
        cls, examples: Sequence[Example], pieces: Sequence[WordPieces], separator: int | None, with_casings: bool
    ) -> Self:
        """Join sentences.

        Args:
            pieces: word pieces of each sentence.
            separator: id of the separator; needed for several sentences.
        """
        ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        casings: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
        counts: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        starts, position = list[int](), 0
        for example, found in zip(examples, pieces, strict=True):
            if position and len(found.ids):
                ids.append(np.array([separator], np.int32))
                counts.append(np.ones(1, np.int32))
                casings.append(np.array([LOWER] * with_casings, np.uint8))
                position += 1
            starts.append(position)
            ids.append(found.ids)
            counts.append(found.counts)
            of_words = np.array([casing_of(word) for word in example.words if with_casings], np.uint8)
            casings.append(np.repeat(of_words, found.counts[: len(of_words)]))
            position += len(found.ids)
        borders = np.concatenate(([0], np.cumsum(np.concatenate(counts), dtype=np.int64)))
        return cls(np.concatenate(ids), np.concatenate(casings), starts, borders, separator)

    def around(self, first: int, end: int, room: int, left: int, right: int) -> tuple[int, int]:
        """Extend the tokens ``first`` to ``end`` (exclusive) of a sentence by whole words of its neighbours.

        Both sides get the same number of tokens; what one side does not need goes to the other. A separator stands
        only between words.

        Args:
            room: maximum number of tokens to add.
            left, right: maximum number of tokens to add on each side.
        """
        before, after = min(first, left), min(len(self.ids) - end, right)
        before = min(before, max(room // 2, room - after))
        after = min(after, room - before)
        low = int(self.borders[np.searchsorted(self.borders, first - before)])
        high = int(self.borders[np.searchsorted(self.borders, end + after, side="right") - 1])
        low += low < first and self.ids[low] == self.separator
        high -= high > end and self.ids[high - 1] == self.separator
        return low, high
