"""Division of texts into overlapping windows that own words, and the special tokens and padding of a window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase


class Window(NamedTuple):
    """The encoder sees words ``start`` to ``end``; ``own_start`` to ``own_end`` are labelled (ends exclusive)."""

    start: int
    end: int
    own_start: int
    own_end: int


def plan_windows(piece_counts: NDArray[np.int32], capacity: int, overlap: int) -> list[Window]:
    """Divide a text into windows of at most ``capacity`` word pieces, where one window owns each word.

    Ownership changes in the middle of the overlap, so that each word is owned by the window with more context for it. A
    text without words has no windows.

    Args:
        piece_counts: word pieces of each word, ``(W,)``, each between 1 and ``capacity``.
        capacity: maximum number of word pieces per window.
        overlap: maximum number of word pieces shared by adjacent windows, at most half the capacity.

    Raises:
        ValueError: a word is longer than a window, or the overlap is too large.
    """
    if not len(piece_counts):
        return []
    if not 0 <= overlap <= capacity // 2:
        raise ValueError(f"an overlap of {overlap} word pieces does not fit windows of {capacity}; use at most half")
    if piece_counts.max() > capacity:
        raise ValueError(f"a word of {piece_counts.max()} word pieces does not fit a window of {capacity}")
    borders = np.concatenate(([0], np.cumsum(piece_counts)))  # (W + 1,) word pieces before each word
    words = len(piece_counts)
    shown: list[tuple[int, int]] = []
    start = end = 0
    while end < words:
        if shown:
            start = int(np.searchsorted(borders, borders[end] - overlap))
            earliest = int(np.searchsorted(borders, borders[end + 1] - capacity))  # so that it also has the word at end
            start = max(start, earliest)
        end = int(np.searchsorted(borders, borders[start] + capacity, side="right")) - 1
        shown.append((start, end))
    return _with_owners(shown, borders)


def _with_owners(shown: list[tuple[int, int]], borders: NDArray[np.int64]) -> list[Window]:
    windows: list[Window] = []
    own_start = 0
    for (start, end), following in zip(shown, [*shown[1:], None], strict=True):
        own_end = end
        if following is not None:
            middle = (borders[following[0]] + borders[end]) / 2
            own_end = int(np.searchsorted(borders, middle))
        if own_end > own_start:
            windows.append(Window(start, end, own_start, own_end))
        own_start = own_end
    return windows


@dataclass(frozen=True)
class SequenceLayout:
    """Special tokens, segment ids and padding of a window.

    Args:
        before, after: ids of the special tokens before and after the word pieces.
        before_segments, after_segments: segment ids of the special tokens.
        segment: segment id of the word pieces.
        casing_segments: instead, one segment id per casing; see `processors.features.alignment.casing_of`.
        pad_on_left: whether padding is on the left, as in XLNet.
        pad_token, pad_token_segment_id: token id and segment id of padding.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    before_segments: tuple[int, ...]
    after_segments: tuple[int, ...]
    segment: int = 0
    pad_on_left: bool = False
    pad_token: int = 0
    pad_token_segment_id: int = 0
    casing_segments: tuple[int, ...] = ()

    def capacity(self, max_seq_length: int) -> int:
        """Number of word pieces that fit into a sequence of this length.

        Raises:
            ValueError: no word piece fits.
        """
        capacity = max_seq_length - len(self.before) - len(self.after)
        if capacity < 1:
            raise ValueError(f"max_seq_length {max_seq_length} leaves no room for words after the special tokens")
        return capacity


def layout_of_tokenizer(
    tokenizer: PreTrainedTokenizerBase, model_type: str = "", casing_segments: Sequence[int] = ()
) -> SequenceLayout:
    """Derive the layout from how the tokenizer encodes a single text."""
    probe = tokenizer("a", return_special_tokens_mask=True, return_token_type_ids=True)
    ids, special = probe["input_ids"], probe["special_tokens_mask"]
    segments = probe.get("token_type_ids") or [0] * len(ids)
    inner = [index for index, mark in enumerate(special) if not mark]
    if not inner:
        raise ValueError(f"{type(tokenizer).__name__} knows no letter 'a'; is its vocabulary complete?")
    first, last = inner[0], inner[-1] + 1
    pad_token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return SequenceLayout(
        before=tuple(ids[:first]),
        after=tuple(ids[last:]),
        before_segments=tuple(segments[:first]),
        after_segments=tuple(segments[last:]),
        segment=segments[first],
        pad_on_left=tokenizer.padding_side == "left",
        pad_token=pad_token or 0,
        pad_token_segment_id=4 if model_type == "xlnet" else getattr(tokenizer, "pad_token_type_id", 0),
        casing_segments=tuple(casing_segments),
    )
