# mypy: allow-untyped-decorators, allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
"""Log space in double precision, for the rows that the kernels of `scaled` left: other programs end at once.

They are kernels of their own because the registers that double precision takes would slow down every row.
"""

import triton
import triton.language as tl

from .chain import (
    LOG_SPACE,
    NEGATIVE_INFINITY,
    at_edges,
    find_ends,
    finish,
    finish_gradients,
    is_present,
    kernel,
    load_edges,
    load_scores,
    load_word,
    place,
    zero_if_infinite,
)


@triton.jit
def sum_over(x, scores):
    """log sum_i exp(x_i + scores_ij): (BLOCK,), -inf where every term is."""
    terms = x[:, None] + scores
    top = zero_if_infinite(tl.max(terms, 0))
    return top + tl.log(tl.sum(tl.exp(terms - top[None, :]), 0))


@triton.jit
def sum_all(x):
    """log sum exp(x), -inf if every term is."""
    top = zero_if_infinite(tl.max(x, 0))
    return top + tl.log(tl.sum(tl.exp(x - top), 0))


@kernel
def log_forward_kernel(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, allowed, W, C, value_out, mode_out, alpha_out, fault,
    BLOCK: tl.constexpr, HAS_MASK: tl.constexpr, HAS_TAGS: tl.constexpr, HAS_LEGAL: tl.constexpr,
    HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """As `scaled.forward_kernel`."""
    row = tl.program_id(0).to(tl.int64)
    if tl.load(mode_out + row) == LOG_SPACE:
        j = tl.arange(0, BLOCK)
        first, last = find_ends(mask, mask_row, mask_word, row, W, HAS_MASK)
        starts, ends = load_edges(start, end, legal, C, BLOCK, HAS_LEGAL)
        scores = load_scores(transitions, legal, C, BLOCK, HAS_LEGAL).to(tl.float64)
        alpha_row = alpha_out + row * W * C
        shift = tl.full((), 0.0, tl.float64)
        alpha = tl.zeros_like(starts).to(tl.float64)
        for word in range(first, last + 1):
            here = is_present(mask, mask_row, mask_word, row, word, HAS_MASK)
            x = load_word(emissions, emissions_row, emissions_word, allowed, row, word, W, C, BLOCK, HAS_ALLOWED)
            scored = at_edges(x, starts, ends, word, first, last).to(tl.float64)
            after = scored + tl.where(word == first, 0.0, sum_over(alpha, scores))
            top = zero_if_infinite(tl.max(after, 0))
            after = after - top
            tl.store(alpha_row + word * C + j, after.to(starts.dtype), mask=j < tl.where(here, C, 0))
            alpha = tl.where(here, after, alpha)
            shift += tl.where(here, top, 0.0)
        finish(
            shift + sum_all(alpha), LOG_SPACE, emissions, emissions_row, emissions_word, mask, mask_row, mask_word,
            tags, tags_row, tags_word, start, end, transitions, legal, row, first, last, C, value_out, mode_out,
            fault, HAS_MASK, HAS_TAGS, HAS_LEGAL,
        )  # fmt: skip


@kernel
def log_backward_kernel(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, allowed, W, C, turned, turned_legal, alpha_in, mode_in, grad_in, grad_row,
    grad_emissions, grad_emissions_row, grad_emissions_word, sums,
    BLOCK: tl.constexpr, HAS_MASK: tl.constexpr, HAS_TAGS: tl.constexpr, HAS_LEGAL: tl.constexpr,
    HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """As `scaled.backward_kernel`; the probabilities of tag pairs are added up in `sums`."""
    row = tl.program_id(0).to(tl.int64)
    if tl.load(mode_in + row) == LOG_SPACE:
        to, before = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
        j = tl.arange(0, BLOCK)
        first, last = find_ends(mask, mask_row, mask_word, row, W, HAS_MASK)
        starts, ends = load_edges(start, end, legal, C, BLOCK, HAS_LEGAL)
        scores = load_scores(turned, turned_legal, C, BLOCK, HAS_LEGAL).to(tl.float64)  # (to, from)
        grad = tl.load(grad_in + row * grad_row)
        factor = -grad if HAS_TAGS else grad
        alpha_row, row_sums = alpha_in + row * W * C, sums + row * (C + 2) * C
        pairs = tl.zeros_like(scores)
        leaving = tl.zeros_like(starts).to(tl.float64)
        for step in range(last + 1 - first):
            word = last - step
            here = is_present(mask, mask_row, mask_word, row, word, HAS_MASK)
            inside = j < tl.where(here, C, 0)
            alpha = tl.load(alpha_row + word * C + j, mask=inside, other=NEGATIVE_INFINITY).to(tl.float64)
            x = load_word(emissions, emissions_row, emissions_word, allowed, row, word, W, C, BLOCK, HAS_ALLOWED)
            scored = at_edges(x, starts, ends, word, first, last).to(tl.float64)
            beta = tl.where(word == last, 0.0, sum_over(leaving, scores))
            total = sum_all(alpha + beta)
            shares = tl.exp(leaving[:, None] + scores + alpha[None, :] - total)
            pairs += tl.where(here & (word != last), shares, 0.0)
            out = place(grad_emissions, grad_emissions_row, grad_emissions_word, row, word) + j
            tl.store(out, factor * tl.exp(alpha + beta - total).to(starts.dtype), mask=inside)
            after = scored + beta
            leaving = tl.where(here, after - zero_if_infinite(tl.max(after, 0)), leaving)
        tl.store(row_sums + to * C + before, factor * pairs, mask=(to < C) & (before < C))
        finish_gradients(
            grad, mask, mask_row, mask_word, tags, tags_row, tags_word, grad_emissions, grad_emissions_row,
            grad_emissions_word, row_sums, row, first, last, C, BLOCK, HAS_MASK, HAS_TAGS,
        )  # fmt: skip
