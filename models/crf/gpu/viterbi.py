# mypy: allow-untyped-decorators, allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
"""The kernel that finds the best path of each row (Viterbi 1967)."""

import triton
import triton.language as tl

from .chain import (
    NEGATIVE_INFINITY,
    at_edges,
    find_ends,
    is_present,
    kernel,
    load_edges,
    load_scores,
    load_word,
    zero_if_infinite,
)


@triton.jit
def load_column(transitions, legal, tag, C, BLOCK: tl.constexpr, HAS_LEGAL: tl.constexpr):
    """The scores of the transitions into one tag (BLOCK,)."""
    i = tl.arange(0, BLOCK)
    scores = tl.load(transitions + i * C + tag, mask=i < C, other=NEGATIVE_INFINITY)
    if HAS_LEGAL:
        may = tl.load(legal + i * (C + 2) + tag, mask=i < C, other=0) != 0
        scores = tl.where(may, scores, NEGATIVE_INFINITY)
    return scores


@kernel
def decode_kernel(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word,
    start, end, transitions, legal, allowed, W, C, best, paths, value_out,
    BLOCK: tl.constexpr, HAS_MASK: tl.constexpr, HAS_LEGAL: tl.constexpr, HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """The best path of each row and its score: -inf if there is no path, NaN if a score is NaN or infinite.

    No back-pointers: the path is found backwards, from the stored scores of the best paths up to each word. The
    largest of them is subtracted at every word, so that long rows keep their digits.
    """
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    first, last = find_ends(mask, mask_row, mask_word, row, W, HAS_MASK)
    starts, ends = load_edges(start, end, legal, C, BLOCK, HAS_LEGAL)
    scores = load_scores(transitions, legal, C, BLOCK, HAS_LEGAL)
    best_row = best + row * W * C

    value = tl.full((), 0.0, tl.float64)
    best_here = tl.zeros_like(starts)
    invalid = ~(tl.max(tl.where(scores < float("inf"), 0, 1), 0) == 0)
    x = load_word(emissions, emissions_row, emissions_word, allowed, row, first, W, C, BLOCK, HAS_ALLOWED)
    present = first <= last
    for word in range(first, last + 1):
        scored, here = at_edges(x, starts, ends, word, first, last), present
        following = tl.minimum(word + 1, last)
        x = load_word(emissions, emissions_row, emissions_word, allowed, row, following, W, C, BLOCK, HAS_ALLOWED)
        present = is_present(mask, mask_row, mask_word, row, following, HAS_MASK)

        invalid = invalid | (here & ~(scored < float("inf")))
        after = scored + tl.where(word == first, 0.0, tl.max(best_here[:, None] + scores, 0))
        top = tl.max(after, 0)
        after = after - zero_if_infinite(top)
        tl.store(best_row + word * C + j, after, mask=j < tl.where(here, C, 0))
        best_here = tl.where(here, after, best_here)
        value += tl.where(here, top.to(tl.float64), 0.0)
    tl.debug_barrier()  # what one thread stored, another reads

    if tl.max(tl.where(invalid, 1, 0), 0) > 0:
        value = value * float("nan")
    found_last = tl.where(value > NEGATIVE_INFINITY, last, first - 1)
    column = tl.where(j < C, 0.0, NEGATIVE_INFINITY).to(starts.dtype)
    inside = j < tl.where(found_last >= first, C, 0)
    best_here = tl.load(best_row + found_last * C + j, mask=inside, other=NEGATIVE_INFINITY)
    present = found_last >= first
    for step in range(found_last + 1 - first):
        word = found_last - step
        following = tl.maximum(word - 1, first)
        stored, here = best_here, present
        best_here = tl.load(best_row + following * C + j, mask=j < C, other=NEGATIVE_INFINITY)
        present = is_present(mask, mask_row, mask_word, row, following, HAS_MASK)
        if here:
            tag = tl.argmax(stored + column, 0)
            tl.store(paths + row * W + word, tag)
            column = load_column(transitions, legal, tag, C, BLOCK, HAS_LEGAL)
    tl.store(value_out + row, value.to(value_out.dtype.element_ty))
