# mypy: allow-untyped-decorators, allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
"""The kernel that finds the best path of each row (Viterbi 1967)."""

import triton
import triton.language as tl

from .kernels import (
    NEGATIVE_INFINITY,
    find_ends,
    is_present,
    load_edges,
    load_potentials,
    load_scores,
    zero_if_infinite,
)


@triton.jit
def load_column(transitions, legal, tag, C: tl.constexpr, BLOCK: tl.constexpr, HAS_LEGAL: tl.constexpr):
    """The scores of the transitions into one tag (BLOCK,)."""
    i = tl.arange(0, BLOCK)
    scores = tl.load(transitions + i * C + tag, mask=i < C, other=NEGATIVE_INFINITY)
    if HAS_LEGAL:
        allowed = tl.load(legal + i * (C + 2) + tag, mask=i < C, other=0) != 0
        scores = tl.where(allowed, scores, NEGATIVE_INFINITY)
    return scores


@triton.jit
def decode_kernel(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word,
    start, end, transitions, legal, allowed, W, best, paths, value_out,
    C: tl.constexpr, BLOCK: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_LEGAL: tl.constexpr, HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """The best path of each row and its score; no back-pointers, as `cpu/viterbi.py`."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    first, last = find_ends(mask, mask_row, mask_word, row, W, HAS_MASK)
    starts, ends = load_edges(start, end, legal, C, BLOCK, HAS_LEGAL)
    scores = load_scores(transitions, legal, C, BLOCK, HAS_LEGAL)
    best_row = best + row * W * C

    value = tl.full((), 0.0, tl.float64)
    here = tl.zeros_like(starts)
    for word in range(first, last + 1):
        if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
            x = load_potentials(
                emissions, emissions_row, emissions_word, allowed, starts, ends, row, word, first, last, W,
                C, BLOCK, HAS_ALLOWED,
            )  # fmt: skip
            here = x + tl.where(word == first, 0.0, tl.max(here[:, None] + scores, 0))
            top = tl.max(here, 0)
            here = here - zero_if_infinite(top)
            value += top.to(tl.float64)
            tl.store(best_row + word * C + j, here, mask=j < C)
    # What one thread stored, another reads.
    tl.debug_barrier()
    if value == NEGATIVE_INFINITY:
        last = first - 1
    column = tl.where(j < C, 0.0, NEGATIVE_INFINITY).to(starts.dtype)
    for step in range(last + 1 - first):
        word = last - step
        if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
            here = tl.load(best_row + word * C + j, mask=j < C, other=NEGATIVE_INFINITY)
            tag = tl.argmax(here + column, 0)
            tl.store(paths + row * W + word, tag)
            column = load_column(transitions, legal, tag, C, BLOCK, HAS_LEGAL)
    tl.store(value_out + row, value.to(starts.dtype))
