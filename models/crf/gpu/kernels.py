# mypy: allow-untyped-decorators, allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
"""Triton kernels: one program a row of the batch, the whole loop over its words in one launch.

A program holds the transitions on chip, as a tile (BLOCK, BLOCK) with BLOCK the power of two that holds C tags. It
walks from the first word to the last one that is not masked, so padding costs nothing and holes next to nothing. The
arithmetic is that of `cpu/scaled.py`, with the same check, and log space in double precision for a row that fails it.
"""

import triton
import triton.language as tl

from .. import chains

SCALED = tl.constexpr(chains.SCALED)
LOG_SPACE = tl.constexpr(chains.LOG_SPACE)
NO_GRADIENT = tl.constexpr(chains.NO_GRADIENT)
NO_PATH = tl.constexpr(chains.NO_PATH)
NO_SUCH_TAG = tl.constexpr(chains.NO_SUCH_TAG)
NEGATIVE_INFINITY = tl.constexpr(float("-inf"))
NAN = tl.constexpr(float("nan"))
FLUSH = tl.constexpr(32)  # words between two moves of the pairwise sums to double precision


@triton.jit
def place(tensor, row_step, word_step, row, word):
    """Where a word of a row lies. A batch may be longer than 32 bits can count."""
    return tensor + row * row_step + tl.cast(word, tl.int64) * word_step


@triton.jit
def is_present(mask, mask_row, mask_word, row, word, HAS_MASK: tl.constexpr):
    """Whether a word is not masked."""
    present = True
    if HAS_MASK:
        present = tl.load(place(mask, mask_row, mask_word, row, word)) != 0
    return present


@triton.jit
def find_ends(mask, mask_row, mask_word, row, W, HAS_MASK: tl.constexpr):
    """The first and the last word that is not masked; W and -1 if there is none."""
    first, last = 0, W - 1
    if HAS_MASK:
        first, last = W, -1
        for begin in range(0, W, 128):
            words = begin + tl.arange(0, 128)
            present = tl.load(place(mask, mask_row, mask_word, row, words), mask=words < W, other=0) != 0
            first = tl.minimum(first, tl.min(tl.where(present, words, W), 0))
            last = tl.maximum(last, tl.max(tl.where(present, words, -1), 0))
    return first, last


@triton.jit
def load_scores(transitions, legal, C: tl.constexpr, BLOCK: tl.constexpr, HAS_LEGAL: tl.constexpr):
    """The scores of transitions (BLOCK, BLOCK), -inf for what is illegal or padding."""
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    inside = (i < C) & (j < C)
    scores = tl.load(transitions + i * C + j, mask=inside, other=NEGATIVE_INFINITY)
    if HAS_LEGAL:
        allowed = tl.load(legal + i * (C + 2) + j, mask=inside, other=0) != 0
        scores = tl.where(allowed, scores, NEGATIVE_INFINITY)
    return scores


@triton.jit
def load_edges(start, end, legal, C: tl.constexpr, BLOCK: tl.constexpr, HAS_LEGAL: tl.constexpr):
    """The scores of starting and of ending with each tag (BLOCK,)."""
    j = tl.arange(0, BLOCK)
    starts = tl.load(start + j, mask=j < C, other=NEGATIVE_INFINITY)
    ends = tl.load(end + j, mask=j < C, other=NEGATIVE_INFINITY)
    if HAS_LEGAL:
        may_start = tl.load(legal + C * (C + 2) + j, mask=j < C, other=0) != 0
        may_end = tl.load(legal + j * (C + 2) + C + 1, mask=j < C, other=0) != 0
        starts = tl.where(may_start, starts, NEGATIVE_INFINITY)
        ends = tl.where(may_end, ends, NEGATIVE_INFINITY)
    return starts, ends


@triton.jit
def load_potentials(
    emissions, emissions_row, emissions_word, allowed, starts, ends, row, word, first, last, W,
    C: tl.constexpr, BLOCK: tl.constexpr, HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """The scores of one word alone (BLOCK,): emissions, and starting and ending where it does so."""
    j = tl.arange(0, BLOCK)
    x = tl.load(place(emissions, emissions_row, emissions_word, row, word) + j, mask=j < C, other=NEGATIVE_INFINITY)
    if HAS_ALLOWED:
        may = tl.load(allowed + (row * W + word) * C + j, mask=j < C, other=0) != 0
        x = tl.where(may, x, NEGATIVE_INFINITY)
    x = tl.where(word == first, x + starts, x)
    return tl.where(word == last, x + ends, x)


@triton.jit
def zero_if_infinite(x):
    """x, but 0 for -inf: to subtract it makes no NaN of -inf."""
    return tl.where(x == NEGATIVE_INFINITY, 0.0, x)


@triton.jit
def sum_in(x, scores):
    """log sum_i exp(x_i + scores_ij): (BLOCK,), -inf where every term is."""
    terms = x[:, None] + scores
    top = zero_if_infinite(tl.max(terms, 0))
    return top + tl.log(tl.sum(tl.exp(terms - top[None, :]), 0))


@triton.jit
def sum_out(x, scores):
    """log sum_j exp(scores_ij + x_j): (BLOCK,), -inf where every term is."""
    terms = scores + x[None, :]
    top = zero_if_infinite(tl.max(terms, 1))
    return top + tl.log(tl.sum(tl.exp(terms - top[:, None]), 1))


@triton.jit
def sum_all(x):
    """log sum exp(x), -inf if every term is."""
    top = zero_if_infinite(tl.max(x, 0))
    return top + tl.log(tl.sum(tl.exp(x - top), 0))


@triton.jit
def path_score(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, row, first, last,
    C: tl.constexpr, HAS_MASK: tl.constexpr, HAS_LEGAL: tl.constexpr,
):  # fmt: skip
    """The score of the given tags in double precision, and whether they all exist."""
    score = tl.full((), 0.0, tl.float64)
    before = C
    exist = True
    for word in range(first, last + 1):
        if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
            given = tl.load(place(tags, tags_row, tags_word, row, word))
            exist = exist & (given >= 0) & (given < C)
            tag = tl.minimum(tl.maximum(given, 0), C - 1).to(tl.int32)
            if before == C:
                score += tl.load(start + tag).to(tl.float64)
            else:
                score += tl.load(transitions + before * C + tag).to(tl.float64)
            if HAS_LEGAL:
                may = tl.load(legal + before * (C + 2) + tag) != 0
                score = tl.where(may, score, NEGATIVE_INFINITY)
            score += tl.load(place(emissions, emissions_row, emissions_word, row, word) + tag).to(tl.float64)
            before = tag
    if last >= 0:
        score += tl.load(end + before).to(tl.float64)
        if HAS_LEGAL:
            may = tl.load(legal + before * (C + 2) + C + 1) != 0
            score = tl.where(may, score, NEGATIVE_INFINITY)
    return score, exist


@triton.jit
def is_full(step):
    """Whether the pairwise sums are to be moved after a step."""
    return tl.cast(step, tl.int32) % FLUSH == FLUSH - 1  # interpreted, a step is a number of Python


@triton.jit
def move_pairs(sums, pairs, C: tl.constexpr, BLOCK: tl.constexpr):
    """Add the pairwise sums of some words to those of their row, which have double precision, and clear them."""
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    inside = (i < C) & (j < C)
    tl.store(sums + i * C + j, tl.load(sums + i * C + j, mask=inside, other=0.0) + pairs, mask=inside)
    tl.debug_barrier()  # what one thread stored, another may read
    return tl.zeros_like(pairs)


@triton.jit
def forward_kernel(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, allowed, W, SMALLEST: tl.constexpr, value_out, mode_out, alpha_out, fault,
    C: tl.constexpr, BLOCK: tl.constexpr, HAS_MASK: tl.constexpr, HAS_TAGS: tl.constexpr,
    HAS_LEGAL: tl.constexpr, HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """Log-partition of each row, or log-likelihood of its tags; forward variables and mode for the backward kernel."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    first, last = find_ends(mask, mask_row, mask_word, row, W, HAS_MASK)
    starts, ends = load_edges(start, end, legal, C, BLOCK, HAS_LEGAL)
    scores = load_scores(transitions, legal, C, BLOCK, HAS_LEGAL)
    top_score = zero_if_infinite(tl.max(tl.max(scores, 0), 0))
    weights = tl.exp(scores - top_score)
    held = tl.where((scores > NEGATIVE_INFINITY) & (weights < SMALLEST), 1, 0)
    doubtful = tl.max(tl.max(held, 0), 0) > 0
    alpha_row = alpha_out + row * W * C

    shift = tl.full((), 0.0, tl.float64)
    alpha = tl.zeros_like(starts)
    for word in range(first, last + 1):
        if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
            x = load_potentials(
                emissions, emissions_row, emissions_word, allowed, starts, ends, row, word, first, last, W,
                C, BLOCK, HAS_ALLOWED,
            )  # fmt: skip
            top = zero_if_infinite(tl.max(x, 0))
            arriving = tl.where(word == first, 1.0, tl.sum(alpha[:, None] * weights, 0))
            after = arriving * tl.exp(x - top)
            mass = tl.sum(after, 0)
            alpha = after / mass
            tl.store(alpha_row + word * C + j, alpha, mask=j < C)
            counted = (arriving > 0) & (x > NEGATIVE_INFINITY)
            doubtful = doubtful | ~(mass >= 8 * SMALLEST)
            doubtful = doubtful | (tl.min(tl.where(counted, alpha, 1.0), 0) < SMALLEST)
            shift += top.to(tl.float64) + tl.log(mass.to(tl.float64))
            if word != first:
                shift += top_score.to(tl.float64)

    mode = SCALED
    if doubtful:
        mode = LOG_SPACE
        shift = tl.full((), 0.0, tl.float64)
        exact_scores = scores.to(tl.float64)
        log_alpha = tl.zeros_like(starts).to(tl.float64)
        for word in range(first, last + 1):
            if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
                x = load_potentials(
                    emissions, emissions_row, emissions_word, allowed, starts, ends, row, word, first, last, W,
                    C, BLOCK, HAS_ALLOWED,
                ).to(tl.float64)  # fmt: skip
                log_alpha = x + tl.where(word == first, 0.0, sum_in(log_alpha, exact_scores))
                top64 = zero_if_infinite(tl.max(log_alpha, 0))
                log_alpha = log_alpha - top64
                shift += top64
                tl.store(alpha_row + word * C + j, log_alpha.to(starts.dtype), mask=j < C)
        shift += sum_all(log_alpha)
    if shift == NEGATIVE_INFINITY:
        mode = NO_PATH
    value = shift
    if HAS_TAGS:
        score, exist = path_score(
            emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
            start, end, transitions, legal, row, first, last, C, HAS_MASK, HAS_LEGAL,
        )  # fmt: skip
        value = score - shift
        if (score == NEGATIVE_INFINITY) & (mode != NO_PATH):
            mode = NO_GRADIENT
        if exist == 0:
            mode = NO_SUCH_TAG
    if last < 0:
        mode = NO_GRADIENT
        value = value * 0
    if mode >= NO_PATH:
        tl.store(fault, row * 8 + mode)
    tl.store(value_out + row, value.to(starts.dtype))
    tl.store(mode_out + row, mode)


@triton.jit
def backward_kernel(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, allowed, W, alpha_in, mode_in, grad_in, grad_row,
    grad_emissions, grad_emissions_row, grad_emissions_word, sums,
    C: tl.constexpr, BLOCK: tl.constexpr, HAS_MASK: tl.constexpr, HAS_TAGS: tl.constexpr,
    HAS_LEGAL: tl.constexpr, HAS_ALLOWED: tl.constexpr,
):  # fmt: skip
    """Gradients: of emissions (B, W, C), and of each row's share in those of the parameters, (B, C + 2, C)."""
    row = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    tag_ids = tl.arange(0, BLOCK)
    first, last = find_ends(mask, mask_row, mask_word, row, W, HAS_MASK)
    mode = tl.load(mode_in + row)
    grad = tl.load(grad_in + row * grad_row)
    if (mode == NO_PATH) & (not HAS_TAGS):  # of words without a distribution
        for word in range(first, last + 1):
            if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
                out = place(grad_emissions, grad_emissions_row, grad_emissions_word, row, word) + tag_ids
                tl.store(out, NAN, mask=tag_ids < C)
    if mode >= NO_GRADIENT:
        last = first - 1
    starts, ends = load_edges(start, end, legal, C, BLOCK, HAS_LEGAL)
    scores = load_scores(transitions, legal, C, BLOCK, HAS_LEGAL)
    factor = -grad if HAS_TAGS else grad
    alpha_row = alpha_in + row * W * C
    row_sums = sums + row * (C + 2) * C

    pairs = tl.zeros_like(scores)
    at_start, at_end = tl.zeros_like(starts), tl.zeros_like(starts)
    if mode == SCALED:
        top_score = zero_if_infinite(tl.max(tl.max(scores, 0), 0))
        weights = tl.exp(scores - top_score)
        leaving = tl.zeros_like(starts)
        for step in range(last + 1 - first):
            word = last - step
            if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
                alpha = tl.load(alpha_row + word * C + tag_ids, mask=tag_ids < C, other=0.0)
                beta = tl.where(word == last, 1.0, tl.sum(weights * leaving[None, :], 1))
                beta = tl.where(alpha > 0, beta, 0.0)
                scale = 1 / tl.sum(alpha * beta, 0)
                beta = beta * scale
                pairs += alpha[:, None] * (leaving * scale)[None, :]
                marginal = factor * alpha * beta
                out = place(grad_emissions, grad_emissions_row, grad_emissions_word, row, word) + tag_ids
                tl.store(out, marginal, mask=tag_ids < C)
                at_start = tl.where(word == first, marginal, at_start)
                at_end = tl.where(word == last, marginal, at_end)
                x = load_potentials(
                    emissions, emissions_row, emissions_word, allowed, starts, ends, row, word, first, last, W,
                    C, BLOCK, HAS_ALLOWED,
                )  # fmt: skip
                leaving = tl.exp(x - zero_if_infinite(tl.max(x, 0))) * beta
            if is_full(step):
                pairs = move_pairs(row_sums, factor * pairs * weights, C, BLOCK)
        pairs = pairs * weights
    if mode == LOG_SPACE:
        exact_scores = scores.to(tl.float64)
        log_leaving = tl.zeros_like(starts).to(tl.float64)
        for step in range(last + 1 - first):
            word = last - step
            if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
                log_alpha = tl.load(alpha_row + word * C + tag_ids, mask=tag_ids < C, other=NEGATIVE_INFINITY)
                log_alpha = log_alpha.to(tl.float64)
                log_beta = tl.where(word == last, 0.0, sum_out(log_leaving, exact_scores))
                total = sum_all(log_alpha + log_beta)
                if word != last:
                    shares = tl.exp(log_alpha[:, None] + exact_scores + log_leaving[None, :] - total)
                    pairs += shares.to(pairs.dtype)
                marginal = factor * tl.exp(log_alpha + log_beta - total).to(starts.dtype)
                out = place(grad_emissions, grad_emissions_row, grad_emissions_word, row, word) + tag_ids
                tl.store(out, marginal, mask=tag_ids < C)
                at_start = tl.where(word == first, marginal, at_start)
                at_end = tl.where(word == last, marginal, at_end)
                x = load_potentials(
                    emissions, emissions_row, emissions_word, allowed, starts, ends, row, word, first, last, W,
                    C, BLOCK, HAS_ALLOWED,
                ).to(tl.float64)  # fmt: skip
                log_leaving = x + log_beta
                log_leaving = log_leaving - zero_if_infinite(tl.max(log_leaving, 0))
            if is_full(step):
                pairs = move_pairs(row_sums, factor * pairs, C, BLOCK)
    pairs = move_pairs(row_sums, factor * pairs, C, BLOCK)
    if HAS_TAGS:
        before = C
        for word in range(first, last + 1):
            if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
                tag = tl.load(place(tags, tags_row, tags_word, row, word)).to(tl.int32)
                pairs += tl.where((i == before) & (j == tag), 1.0, 0.0)  # exact: they are counts
                at_start += tl.where((word == first) & (tag_ids == tag), grad, 0.0)
                at_end += tl.where((word == last) & (tag_ids == tag), grad, 0.0)
                before = tag
        move_pairs(row_sums, grad * pairs.to(tl.float64), C, BLOCK)
        # All of the row's gradients lie in memory before they are read again.
        tl.debug_barrier()
        for word in range(first, last + 1):
            if is_present(mask, mask_row, mask_word, row, word, HAS_MASK):
                tag = tl.load(place(tags, tags_row, tags_word, row, word)).to(tl.int32)
                out = place(grad_emissions, grad_emissions_row, grad_emissions_word, row, word) + tag_ids
                marginal = tl.load(out, mask=tag_ids < C, other=0.0)
                tl.store(out, marginal + tl.where(tag_ids == tag, grad, 0.0), mask=tag_ids < C)
    tl.store(row_sums + C * C + tag_ids, at_start, mask=tag_ids < C)
    tl.store(row_sums + (C + 1) * C + tag_ids, at_end, mask=tag_ids < C)
