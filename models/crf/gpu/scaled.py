# mypy: allow-untyped-decorators, allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
"""Forward and backward variables as scaled probabilities (Rabiner 1989, sec. V.A), and the test that they are exact.

What is below SMALLEST becomes 0: weights of transitions, and forward variables relative to their sum. The products of
those that remain do not underflow, as SMALLEST is the root of the smallest normal number. What was lost does no harm
unless a later word needs it. So each word has a bound on what its tags may have lost before it. A tag is exact if what
arrives there is RATIO times this bound, so that the loss is less than a rounding error, and it may be lost in its turn
if it is below SMALLEST even with the bound. A row with a tag that is neither is left to the kernels of `log_space`.
"""

import triton
import triton.language as tl

from .chain import (
    LOG_SPACE,
    NO_PATH,
    SCALED,
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
def power_below(x):
    """The exponent of the largest power of two that is not above x, and the inverse of that power. x must be normal."""
    if x.dtype == tl.float64:
        field = x.to(tl.int64, bitcast=True) & 0x7FF0000000000000
        exponent = (field >> 52) - 1023
        inverse = (0x7FE0000000000000 - field).to(tl.float64, bitcast=True)
    else:
        field = x.to(tl.int32, bitcast=True) & 0x7F800000
        exponent = ((field >> 23) - 127).to(tl.int64)
        inverse = (0x7F000000 - field).to(tl.float32, bitcast=True)
    return exponent, inverse


@triton.jit
def weigh(scores, SMALLEST: tl.constexpr):
    """The weights of transitions, at most 1 and 0 if below SMALLEST; those that became 0; and the score of weight 1."""
    top = zero_if_infinite(tl.max(tl.max(scores, 0), 0))
    weights = tl.exp(scores - top)
    return tl.where(weights < SMALLEST, 0.0, weights), tl.where(weights < SMALLEST, weights, 0.0), top


@kernel
def forward_kernel(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, allowed, W, C, value_out, mode_out, alpha_out, fault,
    SMALLEST: tl.constexpr, RATIO: tl.constexpr, BLOCK: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_TAGS: tl.constexpr, HAS_LEGAL: tl.constexpr, HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """Log-partition of each row, or log-likelihood of its tags; forward variables and mode for the backward kernel."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    first, last = find_ends(mask, mask_row, mask_word, row, W, HAS_MASK)
    starts, ends = load_edges(start, end, legal, C, BLOCK, HAS_LEGAL)
    scores = load_scores(transitions, legal, C, BLOCK, HAS_LEGAL)
    weights, dropped, top_score = weigh(scores, SMALLEST)
    # What may get lost at a word by the weights: two is above the sum of all forward variables.
    dropped = 2 * tl.sum(dropped, 0) + BLOCK * SMALLEST * SMALLEST
    alpha_row = alpha_out + row * W * C

    shift = tl.full((), 0.0, tl.float64)
    exponents = tl.full((), 0, tl.int64)
    steps = tl.full((), 0, tl.int32)
    alpha = tl.zeros_like(starts)
    doubtful = j < 0
    lost = tl.full((), 0.0, starts.dtype)  # the bound on the sum of what the word before lost
    x = load_word(emissions, emissions_row, emissions_word, allowed, row, first, W, C, BLOCK, HAS_ALLOWED)
    present = first <= last
    for word in range(first, last + 1):
        scored, here = at_edges(x, starts, ends, word, first, last), present
        following = tl.minimum(word + 1, last)
        x = load_word(emissions, emissions_row, emissions_word, allowed, row, following, W, C, BLOCK, HAS_ALLOWED)
        present = is_present(mask, mask_row, mask_word, row, following, HAS_MASK)

        top = zero_if_infinite(tl.max(scored, 0))
        own = tl.exp(scored - top)
        arriving = tl.where(word == first, 1.0, tl.sum(alpha[:, None] * weights, 0))
        after = arriving * own
        mass = tl.sum(after, 0)
        bound = tl.where(word == first, 0.0, lost + dropped)
        at_most = (arriving + bound) * own
        is_lost = at_most < SMALLEST * mass
        doubtful = doubtful | (here & ~is_lost & (arriving < RATIO * bound))
        doubtful = doubtful | (here & ~(mass >= 8 * SMALLEST))

        exponent, inverse = power_below(mass)
        after = tl.where(is_lost, 0.0, after) * inverse
        tl.store(alpha_row + word * C + j, after, mask=j < tl.where(here, C, 0))
        alpha = tl.where(here, after, alpha)
        lost = tl.where(here, tl.sum(tl.where(is_lost, at_most, 0.0), 0) * inverse, lost)
        shift += tl.where(here, top.to(tl.float64), 0.0)
        exponents += tl.where(here, exponent, 0)
        steps += tl.where(here, 1, 0)

    if tl.max(tl.where(doubtful, 1, 0), 0) > 0:
        tl.store(mode_out + row, LOG_SPACE)
    else:
        shift += exponents.to(tl.float64) * 0.6931471805599453 + tl.log(tl.sum(alpha, 0).to(tl.float64))
        shift += (steps - 1).to(tl.float64) * top_score.to(tl.float64)
        shift = tl.where(last < 0, 0.0, shift)
        finish(
            shift, SCALED, emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row,
            tags_word, start, end, transitions, legal, row, first, last, C, value_out, mode_out, fault,
            HAS_MASK, HAS_TAGS, HAS_LEGAL,
        )  # fmt: skip


@kernel
def backward_kernel(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, allowed, W, C, turned, turned_legal, alpha_in, mode_in, grad_in, grad_row,
    grad_emissions, grad_emissions_row, grad_emissions_word, sums, weights_out, left_out, right_out,
    SMALLEST: tl.constexpr, BLOCK: tl.constexpr, HAS_MASK: tl.constexpr, HAS_TAGS: tl.constexpr,
    HAS_LEGAL: tl.constexpr, HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """Gradients of a row: of its emissions, and what it contributes to those of the parameters.

    The sum over words of the probabilities of tag pairs is the product, by element, of the weights with right^T left,
    two matrices with a line for each word. Like the weights and `sums` it is transposed, from column to row: to turn a
    tile would take as much shared memory as the tile.
    """
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    first, last = find_ends(mask, mask_row, mask_word, row, W, HAS_MASK)
    mode = tl.load(mode_in + row)
    grad = tl.load(grad_in + row * grad_row)
    scores = load_scores(turned, turned_legal, C, BLOCK, HAS_LEGAL)  # (to, from)
    weights, _, _ = weigh(scores, SMALLEST)
    if row == 0:
        to, before = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
        tl.store(weights_out + to * C + before, weights.to(tl.float64), mask=(to < C) & (before < C))
    if (mode == NO_PATH) & (not HAS_TAGS):  # no distribution: the gradient is not a number
        for word in range(first, last + 1):
            out = place(grad_emissions, grad_emissions_row, grad_emissions_word, row, word) + j
            present = is_present(mask, mask_row, mask_word, row, word, HAS_MASK)
            tl.store(out, float("nan"), mask=j < tl.where(present, C, 0))
    if mode == SCALED:
        starts, ends = load_edges(start, end, legal, C, BLOCK, HAS_LEGAL)
        factor = -grad if HAS_TAGS else grad
        alpha_row, left_row, right_row = alpha_in + row * W * C, left_out + row * W * C, right_out + row * W * C
        leaving = tl.zeros_like(starts)
        x = load_word(emissions, emissions_row, emissions_word, allowed, row, last, W, C, BLOCK, HAS_ALLOWED)
        alpha = tl.load(alpha_row + last * C + j, mask=j < tl.where(last >= 0, C, 0), other=0.0)
        present = last >= 0
        for step in range(last + 1 - first):
            word = last - step
            scored, here, forward = at_edges(x, starts, ends, word, first, last), present, alpha
            following = tl.maximum(word - 1, first)
            x = load_word(emissions, emissions_row, emissions_word, allowed, row, following, W, C, BLOCK, HAS_ALLOWED)
            alpha = tl.load(alpha_row + following * C + j, mask=j < C, other=0.0)
            present = is_present(mask, mask_row, mask_word, row, following, HAS_MASK)

            beta = tl.where(word == last, 1.0, tl.sum(leaving[:, None] * weights, 0))
            beta = tl.where(forward > 0, beta, 0.0)
            scale = 1 / tl.sum(forward * beta, 0)
            beta = beta * scale
            inside = j < tl.where(here, C, 0)
            out = place(grad_emissions, grad_emissions_row, grad_emissions_word, row, word) + j
            tl.store(out, factor * forward * beta, mask=inside)
            tl.store(left_row + word * C + j, forward.to(tl.float64), mask=inside)
            tl.store(right_row + word * C + j, (factor * scale * leaving).to(tl.float64), mask=inside)
            own = tl.exp(scored - zero_if_infinite(tl.max(scored, 0)))
            leaving = tl.where(here, own * beta, leaving)
        row_sums = sums + row * (C + 2) * C
        finish_gradients(
            grad, mask, mask_row, mask_word, tags, tags_row, tags_word, grad_emissions, grad_emissions_row,
            grad_emissions_word, row_sums, row, first, last, C, BLOCK, HAS_MASK, HAS_TAGS,
        )  # fmt: skip
