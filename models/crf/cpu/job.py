# mypy: allow-untyped-decorators, no-warn-return-any
"""One call of a compiled kernel: every argument is an integer, an address or a size, in one structure.

A structure is what a C callback can take, all threads of a call share it, and it is filled in a microsecond where
numba's own argument handling takes ten.
"""

import ctypes
from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit

from .lanes import LANES, Array, Real, broadcast, larger, largest, load, load_first, store
from .primitives import array_at

NEXT_CHUNK, CHUNKS_DONE, FAULT = 0, 1, 2  # the counters that threads share are the first fields

_FIELDS = (
    *("next_chunk", "chunks_done", "fault"),
    # B rows, W words, C tags, entries of a padded row of tags; the rows, or groups of rows, to divide; of them in a
    # chunk; chunks
    *("rows", "words", "num_tags", "width", "parts", "chunk", "chunks"),
    # Inputs: addresses, 0 for what is absent; strides, in entries, of what may be strided.
    *("emissions", "emissions_row", "emissions_word", "mask", "mask_row", "mask_word", "tags", "tags_row", "tags_word"),
    *("start", "end", "transitions", "legal", "allowed"),
    # Outputs of the forward kernel, inputs of the backward one.
    *("value", "mode", "alpha", "total"),
    *("grad", "grad_row", "grad_emissions", "grad_emissions_row", "grad_emissions_word"),
    *("sums", "grad_start", "grad_end", "grad_transitions"),
    # Decoding.
    *("paths", "padding"),
)


class Job(ctypes.Structure):
    """The structure, zero where nothing was written."""

    _fields_ = [(name, ctypes.c_int64) for name in _FIELDS]


JOB_TYPE = np.dtype([(name, np.int64) for name in _FIELDS])

STRIDED = 1 << 60  # length given to a strided tensor seen as flat: its indices come from its strides

Inputs = namedtuple("Inputs", "emissions mask tags allowed start end scores")


@njit
def view_inputs(job: Any, like: Real) -> Inputs:
    """The inputs of a job as arrays; what is illegal is -inf in `start`, `end` (width,) and `scores` (width, width)."""
    C, width = job.num_tags, job.width
    first = array_at(job.start, C, like)
    last = array_at(job.end, C, like)
    transitions = array_at(job.transitions, (C, C), like)
    legal = array_at(job.legal, (C + 2, C + 2), np.bool_(True))
    everything = job.legal == 0

    start = np.full(width, -np.inf, transitions.dtype)
    end = np.full(width, -np.inf, transitions.dtype)
    scores = np.full((width, width), -np.inf, transitions.dtype)
    for i in range(C):
        if everything or legal[C, i]:
            start[i] = first[i]
        if everything or legal[i, C + 1]:
            end[i] = last[i]
        for j in range(C):
            if everything or legal[i, j]:
                scores[i, j] = transitions[i, j]
    return Inputs(
        array_at(job.emissions, STRIDED, like),
        array_at(job.mask, STRIDED, np.bool_(True)),
        array_at(job.tags, STRIDED, np.int64(0)),
        array_at(job.allowed, STRIDED, np.bool_(True)),
        start,
        end,
        scores,
    )


@njit
def view_outputs(job: Any, like: Real) -> tuple[Array, Array, Array, Array, Array]:
    """The values and modes of rows, the gradients by values (an input) and by emissions, and the sums of chunks."""
    return (
        array_at(job.value, job.rows, like),
        array_at(job.mode, job.rows, np.uint8(0)),
        array_at(job.grad, STRIDED, like),
        array_at(job.grad_emissions, STRIDED, like),
        array_at(job.sums, (job.chunks, job.num_tags + 2, job.num_tags), np.float64(0)),
    )


@njit
def find_words(words: Array, job: Any, inputs: Inputs, row: int) -> int:
    """Write the columns of a row that are not masked to `words`, and return how many: no other exists for the chain."""
    if job.mask == 0:
        for column in range(job.words):
            words[column] = column
        return job.words
    count = 0
    base = row * job.mask_row
    for column in range(job.words):
        words[np.uint64(count)] = column  # what a masked column writes, the next one writes over
        count += inputs.mask[np.uint64(base + column * job.mask_word)]
    return count


@njit(forceinline=True)
def load_potentials(out: Array, job: Any, inputs: Inputs, row: int, words: Array, k: int, count: int) -> Real:
    """The scores of word k of `count` alone (width,): its emissions, and those of starting and ending where it does so.

    So the chain has no boundary terms: its path scores are sums of potentials and transitions. Returns the largest.
    """
    C = job.num_tags
    base = row * job.emissions_row + words[k] * job.emissions_word
    top = broadcast(-np.inf, load(out, 0))
    for j in range(0, job.width, LANES):
        scores = load_first(inputs.emissions, base + j, C - j, -np.inf)
        if k == 0:
            scores = scores + load(inputs.start, j)
        if k == count - 1:
            scores = scores + load(inputs.end, j)
        store(out, j, scores)
        top = larger(top, scores)
    if job.allowed == 0:
        return largest(top)
    base = (row * job.words + words[k]) * C
    for j in range(C):
        if not inputs.allowed[base + j]:
            out[j] = -np.inf
    return out.max()


@njit(forceinline=True)
def tag_at(job: Any, inputs: Inputs, row: int, column: int) -> int:
    """The given tag of a word."""
    return inputs.tags[np.uint64(row * job.tags_row + column * job.tags_word)]


@njit
def path_score(job: Any, inputs: Inputs, row: int, words: Array, count: int) -> tuple[float, bool]:
    """The score of the given tags of a row, in double precision, and whether all of them exist."""
    base = row * job.emissions_row
    words_score, moves_score = 0.0, 0.0  # apart, so that neither sum waits for the other
    before = np.uint64(0)
    for k in range(count):
        column = words[np.uint64(k)]
        tag = np.uint64(tag_at(job, inputs, row, column))  # below zero it is a large number
        if tag >= np.uint64(job.num_tags):
            return 0.0, False
        words_score += inputs.emissions[np.uint64(base + column * job.emissions_word) + tag]
        moves_score += inputs.start[tag] if k == 0 else inputs.scores[before, tag]
        before = tag
    return words_score + (moves_score + inputs.end[before]), True
