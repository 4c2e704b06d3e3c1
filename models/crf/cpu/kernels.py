# mypy: allow-untyped-decorators, no-warn-return-any
"""The three kernels as C callbacks: each thread of a call takes chunks of rows until none is left.

Rows are divided into chunks by the size of the batch alone, and gradients of parameters are summed within a chunk in
the order of its rows and over chunks in their order: the result does not depend on how many threads there were.
"""

from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types

from models.crf.backend import LOG_SPACE, NO_GRADIENT, NO_PATH, NO_SUCH_TAG, SCALED
from models.crf.cpu import logspace, scaled, viterbi
from models.crf.cpu.job import (
    CHUNKS_DONE,
    FAULT,
    JOB_TYPE,
    NEXT_CHUNK,
    STRIDED,
    Inputs,
    find_words,
    path_score,
    tag_at,
    tags_in_range,
    view_inputs,
)
from models.crf.cpu.lanes import Array, Real
from models.crf.cpu.primitives import array_at, fetch_add


@njit
def forward(job: Any, counters: Array, like: Real) -> None:
    """Write the log-partition of each row, or the log-likelihood of its tags, with forward variables and modes."""
    inputs = view_inputs(job, like)
    tables = scaled.make_tables(job, inputs)
    words = np.empty(job.words, np.int64)
    value = array_at(job.value, job.rows, like)
    mode = array_at(job.mode, job.rows, np.uint8(0))
    alpha = array_at(job.alpha, (job.rows, job.words, job.width), like)
    while True:
        first = fetch_add(counters, NEXT_CHUNK, 1) * job.chunk
        if first >= job.rows:
            return
        for row in range(first, min(first + job.chunk, job.rows)):
            count = find_words(words, job, inputs, row)
            value[row] = 0
            mode[row] = NO_GRADIENT
            if count == 0:
                continue
            if job.tags != 0 and not tags_in_range(job, inputs, row, words, count):
                mode[row] = NO_SUCH_TAG
                counters[FAULT] = 1
                continue
            mode[row] = SCALED
            result = scaled.forward(job, inputs, tables, alpha[row], row, words, count)
            if np.isnan(result):
                mode[row] = LOG_SPACE
                result = logspace.forward(job, inputs, row, words, count)[0]
            if result == -np.inf:
                mode[row] = NO_PATH
                counters[FAULT] = 1
                continue
            if job.tags != 0:
                result = path_score(job, inputs, row, words, count) - result
                if result == -np.inf:
                    mode[row] = NO_GRADIENT
            value[row] = result


@njit
def add_path(
    job: Any, inputs: Inputs, row: int, words: Array, count: int, grad: float, grad_emissions: Array, sums: Array
) -> None:
    """Add the gradient of grad * the score of the given tags."""
    C = job.num_tags
    before = C
    for k in range(count):
        tag = tag_at(job, inputs, row, words[k])
        grad_emissions[row * job.grad_emissions_row + words[k] * job.grad_emissions_word + tag] += grad
        sums[before, tag] += grad
        before = tag
    sums[C + 1, before] += grad


@njit
def clear_row(job: Any, row: int, grad_emissions: Array) -> None:
    """Write zeros as the gradient of all words of a row."""
    for column in range(job.words):
        base = row * job.grad_emissions_row + column * job.grad_emissions_word
        gradient = grad_emissions[base : base + job.num_tags]
        gradient[:] = 0


@njit
def sum_chunks(job: Any, sums: Array, like: Real) -> None:
    """Write the gradients of the parameters: the sums of all chunks, in their order."""
    C = job.num_tags
    for chunk in range(1, job.chunks):
        for i in range(C + 2):
            for j in range(C):
                sums[0, i, j] += sums[chunk, i, j]
    transitions = array_at(job.grad_transitions, (C, C), like)
    start = array_at(job.grad_start, C, like)
    end = array_at(job.grad_end, C, like)
    for j in range(C):
        start[j] = sums[0, C, j]
        end[j] = sums[0, C + 1, j]
        for i in range(C):
            transitions[i, j] = sums[0, i, j]


@njit
def backward(job: Any, counters: Array, like: Real) -> None:
    """Write the gradients of the sum of grad * value."""
    inputs = view_inputs(job, like)
    tables = scaled.make_tables(job, inputs)
    C = job.num_tags
    words = np.empty(job.words, np.int64)
    mode = array_at(job.mode, job.rows, np.uint8(0))
    alpha = array_at(job.alpha, (job.rows, job.words, job.width), like)
    grads = array_at(job.grad, STRIDED, like)
    grad_emissions = array_at(job.grad_emissions, STRIDED, like)
    all_sums = array_at(job.sums, (job.chunks, C + 2, C), np.float64(0))
    while True:
        chunk = fetch_add(counters, NEXT_CHUNK, 1)
        if chunk >= job.chunks:
            return
        sums = all_sums[chunk]
        sums[:] = 0
        for row in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.rows)):
            count = find_words(words, job, inputs, row)
            if count < job.words or mode[row] == NO_GRADIENT:
                clear_row(job, row, grad_emissions)
            if mode[row] == NO_GRADIENT:
                continue
            grad = grads[row * job.grad_row]
            factor = -grad if job.tags != 0 else grad
            if mode[row] == SCALED:
                scaled.backward(job, inputs, tables, alpha[row], row, words, count, factor, grad_emissions, sums)
            else:
                logspace.backward(job, inputs, row, words, count, factor, grad_emissions, sums)
            if job.tags != 0:
                add_path(job, inputs, row, words, count, grad, grad_emissions, sums)
        if fetch_add(counters, CHUNKS_DONE, 1) == job.chunks - 1:
            sum_chunks(job, all_sums, like)


@njit
def decode(job: Any, counters: Array, like: Real) -> None:
    """Write the best path of each row to its unmasked words, and its score."""
    inputs = view_inputs(job, like)
    into = np.ascontiguousarray(inputs.scores.T)
    words = np.empty(job.words, np.int64)
    best = np.empty((job.words, job.width), into.dtype)
    mode = array_at(job.mode, job.rows, np.uint8(0))
    value = array_at(job.value, job.rows, like)
    paths = array_at(job.paths, (job.rows, job.words), np.int64(0))
    while True:
        first = fetch_add(counters, NEXT_CHUNK, 1) * job.chunk
        if first >= job.rows:
            return
        for row in range(first, min(first + job.chunk, job.rows)):
            count = find_words(words, job, inputs, row)
            mode[row] = NO_GRADIENT
            value[row] = 0
            if count == 0:
                continue
            value[row] = viterbi.decode(job, inputs, into, best, row, words, count, paths[row])
            if value[row] == -np.inf:
                mode[row] = NO_PATH
                counters[FAULT] = 1


def compile_kernel(name: str, like: Real, fingerprint: str) -> Any:
    """The C callback of a kernel for numbers like `like`, from numba's disk cache where it is there.

    The cache knows when this file changed, not when one that it imports did. But it keys on what a function encloses:
    so each callback encloses a fingerprint of all of them.
    """
    variant = (like, fingerprint)

    def forward_callback(address: Any) -> None:
        forward(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0])

    def backward_callback(address: Any) -> None:
        backward(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0])

    def decode_callback(address: Any) -> None:
        decode(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0])

    callbacks = {"forward": forward_callback, "backward": backward_callback, "decode": decode_callback}
    return cfunc(types.void(types.voidptr), cache=True)(callbacks[name])
