# mypy: allow-untyped-decorators, no-warn-return-any
"""The kernels as C callbacks: each thread of a call takes chunks of the batch until none is left.

A batch is divided by its shape alone, and gradients of parameters are summed within a chunk in the order of its rows
and over chunks in their order: the result does not depend on how many threads there were. A kernel takes one row at a
time, or eight side by side.
"""

import logging
from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types

from ..chains import SCALED
from . import abreast, log_sweeps, scaled, viterbi, viterbi_abreast
from .groups import Group, choose_rows, lay_in, lay_out, make_group
from .job import (
    CHUNKS_DONE,
    FAULT,
    JOB_TYPE,
    NEXT_CHUNK,
    Inputs,
    find_words,
    path_score,
    view_inputs,
    view_outputs,
)
from .lanes import ROWS, Array, Real
from .primitives import array_at, fetch_add
from .rows import add_path, backward_row, forward_row
from .scaled import Tables

logger = logging.getLogger(__name__)


@njit
def sum_chunks(job: Any, values: Array, sums: Array, like: Real) -> None:
    """Write the gradients of the parameters: the sums of all chunks, in their order; and the sum of values."""
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
    if job.total != 0:
        total = 0.0
        for row in range(job.rows):
            total += values[row]
        array_at(job.total, 1, like)[0] = total


@njit
def sweep(job: Any, counters: Array, like: Real) -> None:
    """Forward, backward or both.

    With an address for values, write those of all rows, with forward variables and modes for a later call. With one for
    sums, write the gradients of the sum of grad * value, where grad is -1 if it has no address. With both, nothing is
    kept: a row goes forward and back while it is in the cache.
    """
    inputs = view_inputs(job, like)
    tables = scaled.make_tables(job, inputs)
    width = job.width
    words = np.empty(job.words, np.int64)
    room = np.empty((job.words if job.alpha == 0 else 0, width), tables.weights.dtype)
    alphas = array_at(job.alpha, (job.rows, job.words, width), like)
    values, modes, grads, grad_emissions, sums = view_outputs(job, like)
    while True:
        chunk = fetch_add(counters, NEXT_CHUNK, 1)
        if chunk >= job.chunks:
            return
        if job.sums != 0:
            sums[chunk] = 0
        for row in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.rows)):
            count = find_words(words, job, inputs, row)
            alpha = room if job.alpha == 0 else alphas[row]
            if job.value != 0:
                values[row], modes[row] = forward_row(job, counters, inputs, tables, alpha, row, words, count)
            if job.sums != 0:
                grad = like - 1 if job.grad == 0 else grads[row * job.grad_row]
                mode, row_sums = modes[row], sums[chunk]
                backward_row(job, inputs, tables, alpha, row, words, count, mode, grad, grad_emissions, row_sums)
        if job.sums != 0 and fetch_add(counters, CHUNKS_DONE, 1) == job.chunks - 1:
            sum_chunks(job, values, sums, like)


@njit
def value_of_lane(
    job: Any, inputs: Inputs, tables: Tables, group: Group, lane: int, logs: Array, masses: Array
) -> tuple[float, bool]:
    """The value of a row of a group, and whether it is one: else the row is to be computed by itself."""
    count = group.counts[lane]
    if count == 0 or not masses[lane] > 0:
        return 0.0, False
    value = logs[lane] + np.log(np.float64(masses[lane])) + (count - 1) * np.float64(tables.top_score)
    if job.tags == 0:
        return value, True
    score, exists = path_score(job, inputs, group.rows[lane], group.words[lane], count)
    return score - value, exists and score > -np.inf


@njit
def sweep_abreast(job: Any, counters: Array, like: Real) -> None:
    """As `sweep`, eight rows at a time; forward variables are never kept, so gradients alone compute them again."""
    inputs = view_inputs(job, like)
    tables = scaled.make_tables(job, inputs)
    C, W = job.num_tags, job.words
    group, room = make_group(job), abreast.make_room(W, C, like)
    alpha = np.empty((W, job.width), tables.weights.dtype)  # of a row that is computed by itself
    values, modes, grads, grad_emissions, sums = view_outputs(job, like)
    lanes = np.empty((3, ROWS), tables.weights.dtype)
    counts, masses, factors = lanes[0], lanes[1], lanes[2]
    logs = np.empty(ROWS, np.float64)
    while True:
        chunk = fetch_add(counters, NEXT_CHUNK, 1)
        if chunk >= job.chunks:
            return
        if job.sums != 0:
            sums[chunk] = 0
        for index in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.parts)):
            longest = choose_rows(group, job, inputs, index)
            counts[:] = group.counts
            masses[:] = 0
            if longest > 0 and tables.usable:
                lay_in(room.e, job, inputs, group, longest)
                abreast.make_factors(room, C, counts, longest, logs)
                abreast.forward(room, tables, C, counts, longest, logs, masses)
            for lane in range(ROWS):
                row, count, words = group.rows[lane], group.counts[lane], group.words[lane]
                if row < 0:
                    continue
                grad = like - 1 if job.grad == 0 else grads[row * job.grad_row]
                factors[lane] = -grad if job.tags != 0 else grad
                value, sound = value_of_lane(job, inputs, tables, group, lane, logs, masses)
                mode = SCALED
                if not sound:
                    counts[lane] = 0
                    value, mode = forward_row(job, counters, inputs, tables, alpha, row, words, count)
                    if job.sums != 0:
                        row_sums = sums[chunk]
                        backward_row(
                            job, inputs, tables, alpha, row, words, count, mode, grad, grad_emissions, row_sums
                        )
                if job.value != 0:
                    values[row], modes[row] = value, mode
            if job.sums == 0 or counts.max() == 0:
                continue
            abreast.backward(room, tables, C, counts, longest, factors, sums[chunk])
            lay_out(grad_emissions, job, group, counts, longest, room.e)
            for lane in range(ROWS):
                if counts[lane] > 0 and job.tags != 0:
                    row, count, words = group.rows[lane], group.counts[lane], group.words[lane]
                    add_path(job, inputs, row, words, count, -factors[lane], grad_emissions, sums[chunk])
        if job.sums != 0 and fetch_add(counters, CHUNKS_DONE, 1) == job.chunks - 1:
            sum_chunks(job, values, sums, like)


@njit
def decode(job: Any, counters: Array, like: Real) -> None:
    """Write the best path of each row to its words, padding where there is none, and its score: -inf without a path."""
    inputs = view_inputs(job, like)
    into = np.ascontiguousarray(inputs.scores.T)
    words = np.empty(job.words, np.int64)
    best = np.empty((job.words, job.width), into.dtype)
    value = array_at(job.value, job.rows, like)
    paths = array_at(job.paths, (job.rows, job.words), np.int64(0))
    while True:
        first = fetch_add(counters, NEXT_CHUNK, 1) * job.chunk
        if first >= job.rows:
            return
        for row in range(first, min(first + job.chunk, job.rows)):
            count = find_words(words, job, inputs, row)
            value[row] = 0
            if count < job.words:
                paths[row] = job.padding
            if count == 0:
                continue
            value[row] = viterbi.decode(job, inputs, into, best, row, words, count, paths[row])
            if value[row] == -np.inf:
                counters[FAULT] = 1


@njit
def decode_abreast(job: Any, counters: Array, like: Real) -> None:
    """As `decode`, eight rows at a time."""
    inputs = view_inputs(job, like)
    scores = inputs.scores
    into = np.ascontiguousarray(scores.T)
    C, W = job.num_tags, job.words
    group, room = make_group(job), viterbi_abreast.make_room(W, C, like)
    row_best = np.empty((W, job.width), scores.dtype)  # of a row that is decoded by itself
    counts, totals = np.empty(ROWS, scores.dtype), np.empty(ROWS, np.float64)
    values = array_at(job.value, job.rows, like)
    paths = array_at(job.paths, (job.rows, W), np.int64(0))
    while True:
        chunk = fetch_add(counters, NEXT_CHUNK, 1)
        if chunk >= job.chunks:
            return
        for index in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.parts)):
            longest = choose_rows(group, job, inputs, index)
            counts[:] = group.counts
            lay_in(room.e, job, inputs, group, longest)
            viterbi_abreast.search(room, scores, C, counts, longest, totals)
            for lane in range(ROWS):
                row, count, words = group.rows[lane], group.counts[lane], group.words[lane]
                if row < 0:
                    continue
                if count < W:
                    paths[row] = job.padding
                values[row] = totals[lane] if count > 0 else 0
                if count > 0 and not np.isfinite(totals[lane]):  # no path, or scores that take all others with them
                    values[row] = viterbi.decode(job, inputs, into, row_best, row, words, count, paths[row])
                    group.counts[lane] = 0
                    if values[row] == -np.inf:
                        counters[FAULT] = 1
            viterbi_abreast.trace(paths, room, C, group, longest)


@njit
def log_sweep(job: Any, counters: Array, like: Real, backwards: bool) -> None:
    """Write the log forward or backward variables of all rows, whose words stand before what is masked."""
    inputs = view_inputs(job, like)
    into = np.ascontiguousarray(inputs.scores.T)
    words = np.empty(job.words, np.int64)
    alpha = array_at(job.alpha, (job.rows, job.words, job.num_tags), like)
    while True:
        first = fetch_add(counters, NEXT_CHUNK, 1) * job.chunk
        if first >= job.rows:
            return
        for row in range(first, min(first + job.chunk, job.rows)):
            count = find_words(words, job, inputs, row)
            if backwards:
                log_sweeps.log_backward(job, inputs, row, count, alpha[row])
            else:
                log_sweeps.log_forward(job, inputs, into, row, count, alpha[row])


def compile_kernel(name: str, like: Real, fingerprint: str) -> Any:
    """The C callback of a kernel for numbers like `like`, from numba's disk cache where it is there.

    The cache knows when this file changed, not when one that it imports did. But it keys on what a function encloses:
    so each callback encloses a fingerprint of all of them.
    """
    variant = (like, fingerprint)

    def sweep_callback(address: Any) -> None:
        sweep(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0])

    def decode_callback(address: Any) -> None:
        decode(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0])

    def sweep_abreast_callback(address: Any) -> None:
        sweep_abreast(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0])

    def decode_abreast_callback(address: Any) -> None:
        decode_abreast(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0])

    def log_forward_callback(address: Any) -> None:
        log_sweep(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0], False)

    def log_backward_callback(address: Any) -> None:
        log_sweep(carray(address, 1, JOB_TYPE)[0], carray(address, 3, np.int64), variant[0], True)

    callbacks = {
        "sweep": sweep_callback,
        "sweep_abreast": sweep_abreast_callback,
        "decode": decode_callback,
        "decode_abreast": decode_abreast_callback,
        "log_forward": log_forward_callback,
        "log_backward": log_backward_callback,
    }
    callback = callbacks[name]
    callback.__qualname__ += f"_{like.dtype.name}"  # names the files of the cache, which processes write at once
    signature = types.void(types.voidptr)
    try:
        return cfunc(signature, cache=True)(callback)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        logger.warning("There is no folder to keep the compiled CRF in; set NUMBA_CACHE_DIR, or each run compiles it")
        return cfunc(signature)(callback)
