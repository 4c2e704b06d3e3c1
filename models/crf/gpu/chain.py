# mypy: allow-untyped-decorators, allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
"""What all kernels read: the words of a row, the scores of one word, those of the transitions, and the given tags.

One program computes a row of the batch, and all the loops over its words run in one launch. A tile of transitions is
(BLOCK, BLOCK), BLOCK a power of two that holds C tags. Its first axis is the one that is summed over, which takes a
tenth of the shuffles that the second would: the backward kernels are given a transposed copy of the matrix.

A row's loop does not branch on the mask: it computes every word from the first to the last present one, keeps the
result of those present, and loads the next word while it computes. Sizes and strides are not compiled in, so that
batches padded to different lengths share one binary.
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
WORDS = tl.constexpr(128)  # words that are read at once where their order does not matter

STEPS = ("emissions", "mask", "tags", "grad_emissions")  # tensors that are given with their strides
SIZES = ("W", "C", "grad_row", *(f"{name}_{axis}" for name in STEPS for axis in ("row", "word")))


def kernel(function):
    """A kernel that is compiled once for all sizes, strides and alignments."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    sizes = [name for name in names if name in SIZES]
    pointers = [name for name in names if name not in SIZES and not name.isupper()]
    return triton.jit(function, do_not_specialize=sizes, do_not_specialize_on_alignment=pointers)


@triton.jit
def place(tensor, row_step, word_step, row, word):
    """The address of a word of a row. A batch may have more numbers than 32 bits can count."""
    return tensor + row * row_step + tl.cast(word, tl.int64) * word_step


@triton.jit
def is_present(mask, mask_row, mask_word, row, word, HAS_MASK: tl.constexpr):
    """Whether a word is not masked."""
    present = tl.cast(word, tl.int32) >= 0  # interpreted, a word may be a number of Python
    if HAS_MASK:
        present = tl.load(place(mask, mask_row, mask_word, row, word), mask=present, other=0) != 0
    return present


@triton.jit
def find_ends(mask, mask_row, mask_word, row, W, HAS_MASK: tl.constexpr):
    """The first and the last word that is not masked; W and -1 if there is none."""
    first = tl.full((), 0, tl.int32)
    last = first + W - 1
    if HAS_MASK:
        first, last = first + W, first - 1
        for begin in range(0, W, WORDS):
            words = begin + tl.arange(0, WORDS)
            present = tl.load(place(mask, mask_row, mask_word, row, words), mask=words < W, other=0) != 0
            first = tl.minimum(first, tl.min(tl.where(present, words, W), 0))
            last = tl.maximum(last, tl.max(tl.where(present, words, -1), 0))
    return first, last


@triton.jit
def load_scores(transitions, legal, C, BLOCK: tl.constexpr, HAS_LEGAL: tl.constexpr):
    """The scores of transitions (BLOCK, BLOCK), from row to column, -inf where illegal or padding."""
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    inside = (i < C) & (j < C)
    scores = tl.load(transitions + i * C + j, mask=inside, other=NEGATIVE_INFINITY)
    if HAS_LEGAL:
        may = tl.load(legal + i * (C + 2) + j, mask=inside, other=0) != 0
        scores = tl.where(may, scores, NEGATIVE_INFINITY)
    return scores


@triton.jit
def load_edges(start, end, legal, C, BLOCK: tl.constexpr, HAS_LEGAL: tl.constexpr):
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
def load_word(
    emissions, emissions_row, emissions_word, allowed, row, word, W, C, BLOCK: tl.constexpr, HAS_ALLOWED: tl.constexpr
):
    """The emissions of a word (BLOCK,), -inf for tags that it may not have, for padding, and before the first word."""
    j = tl.arange(0, BLOCK)
    word = tl.cast(word, tl.int32)
    inside = j < tl.where((word >= 0) & (word < W), C, 0)
    x = tl.load(place(emissions, emissions_row, emissions_word, row, word) + j, mask=inside, other=NEGATIVE_INFINITY)
    if HAS_ALLOWED:
        may = tl.load(allowed + (row * W + word) * C + j, mask=inside, other=0) != 0
        x = tl.where(may, x, NEGATIVE_INFINITY)
    return x


@triton.jit
def at_edges(x, starts, ends, word, first, last):
    """The scores of a word alone: its emissions, and those of starting and ending where it does so."""
    x = tl.where(word == first, x + starts, x)
    return tl.where(word == last, x + ends, x)


@triton.jit
def zero_if_infinite(x):
    """x, but 0 for -inf, which can be subtracted from -inf without making NaN."""
    return tl.where(x == NEGATIVE_INFINITY, 0.0, x)


@triton.jit
def later(left, right):
    return tl.maximum(left, right)


@triton.jit
def load_pairs(
    mask, mask_row, mask_word, tags, tags_row, tags_word, row, words, before, last, C, HAS_MASK: tl.constexpr
):
    """Of WORDS consecutive words: which are present, their tags, and the tag of the present word before each.

    Args:
        before: the last present word before these, -1 if there is none.

    Returns:
        present, tag, tag of the word before (C, the row of the start, if there is none), and the new `before`.
    """
    inside = (words >= 0) & (words <= last)
    present, there = inside, inside & (words > 0)
    if HAS_MASK:
        present = tl.load(place(mask, mask_row, mask_word, row, words), mask=inside, other=0) != 0
        there = tl.load(place(mask, mask_row, mask_word, row, words - 1), mask=there, other=0) != 0
    previous = tl.associative_scan(tl.where(there, words - 1, -1), 0, later)
    previous = tl.maximum(previous, before)
    tag = tl.load(place(tags, tags_row, tags_word, row, words), mask=present, other=0)
    found = present & (previous >= 0)
    tag_before = tl.load(place(tags, tags_row, tags_word, row, previous), mask=found, other=0)
    tag_before = tl.where(found, tag_before, C)
    return present, tag, tag_before, tl.maximum(before, tl.max(tl.where(present, words, -1), 0))


@triton.jit
def path_score(
    emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, row, first, last, C, HAS_MASK: tl.constexpr, HAS_LEGAL: tl.constexpr,
):  # fmt: skip
    """The score of the given tags in double precision, and whether they all exist."""
    score = tl.full((), 0.0, tl.float64)
    faults = 0
    before = -1
    for begin in range(first, last + 1, WORDS):
        words = begin + tl.arange(0, WORDS)
        present, tag, tag_before, before = load_pairs(
            mask, mask_row, mask_word, tags, tags_row, tags_word, row, words, before, last, C, HAS_MASK
        )
        faults += tl.sum(tl.where(present & ((tag < 0) | (tag >= C)), 1, 0), 0)
        tag = tl.minimum(tl.maximum(tag, 0), C - 1)
        starts = tag_before == C
        tag_before = tl.minimum(tl.maximum(tag_before, 0), C)
        row_before = tl.where(starts, 0, tag_before)
        terms = tl.load(place(emissions, emissions_row, emissions_word, row, words) + tag, mask=present, other=0.0)
        terms = terms.to(tl.float64)
        terms += tl.load(transitions + row_before * C + tag, mask=present & ~starts, other=0.0).to(tl.float64)
        terms += tl.load(start + tag, mask=present & starts, other=0.0).to(tl.float64)
        terms += tl.load(end + tag, mask=present & (words == last), other=0.0).to(tl.float64)
        if HAS_LEGAL:
            may = tl.load(legal + tag_before * (C + 2) + tag, mask=present, other=1) != 0
            may_end = tl.load(legal + tag * (C + 2) + C + 1, mask=present & (words == last), other=1) != 0
            terms = tl.where(may & may_end, terms, NEGATIVE_INFINITY)
        score += tl.sum(terms, 0)
    return score, faults == 0


@triton.jit
def finish(
    shift, mode, emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
    start, end, transitions, legal, row, first, last, C, value_out, mode_out, fault,
    HAS_MASK: tl.constexpr, HAS_TAGS: tl.constexpr, HAS_LEGAL: tl.constexpr,
):  # fmt: skip
    """Store the value of a row and how it was computed.

    Args:
        shift: the log-partition, in double precision.
    """
    mode = tl.where(shift == NEGATIVE_INFINITY, NO_PATH, mode)
    value = shift
    if HAS_TAGS:
        score, exist = path_score(
            emissions, emissions_row, emissions_word, mask, mask_row, mask_word, tags, tags_row, tags_word,
            start, end, transitions, legal, row, first, last, C, HAS_MASK, HAS_LEGAL,
        )  # fmt: skip
        value = score - shift
        mode = tl.where((score == NEGATIVE_INFINITY) & (mode != NO_PATH), NO_GRADIENT, mode)
        mode = tl.where(exist, mode, NO_SUCH_TAG)
    mode = tl.where(last < 0, NO_GRADIENT, mode)
    if mode >= NO_PATH:
        tl.store(fault, row * 8 + mode)
    tl.store(value_out + row, value.to(value_out.dtype.element_ty))
    tl.store(mode_out + row, mode)


@triton.jit
def finish_gradients(
    grad, mask, mask_row, mask_word, tags, tags_row, tags_word, grad_emissions, grad_emissions_row,
    grad_emissions_word, row_sums, row, first, last, C, BLOCK: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_TAGS: tl.constexpr,
):  # fmt: skip
    """Add what the given tags contribute to the gradients of a row: of its emissions, and of transitions, transposed.

    A pair of tags that occurs several times is added atomically. All addends are equal, so their order has no effect.
    Then store the gradients of start and end scores: those of the emissions of the first and of the last word.
    """
    tl.debug_barrier()  # what one thread stored, another reads
    if HAS_TAGS:
        before = -1
        for begin in range(first, last + 1, WORDS):
            words = begin + tl.arange(0, WORDS)
            present, tag, tag_before, before = load_pairs(
                mask, mask_row, mask_word, tags, tags_row, tags_word, row, words, before, last, C, HAS_MASK
            )
            out = place(grad_emissions, grad_emissions_row, grad_emissions_word, row, words) + tag
            tl.store(out, tl.load(out, mask=present, other=0.0) + grad, mask=present)
            amounts = tl.zeros_like(words).to(tl.float64) + grad
            tl.atomic_add(row_sums + tag * C + tag_before, amounts, mask=present & (tag_before < C))
        tl.debug_barrier()
    j = tl.arange(0, BLOCK)
    inside = j < tl.where(first <= last, C, 0)
    at_start = tl.load(
        place(grad_emissions, grad_emissions_row, grad_emissions_word, row, first) + j, mask=inside, other=0.0
    )
    at_end = tl.load(
        place(grad_emissions, grad_emissions_row, grad_emissions_word, row, last) + j, mask=inside, other=0.0
    )
    tl.store(row_sums + C * C + j, at_start.to(tl.float64), mask=inside)
    tl.store(row_sums + (C + 1) * C + j, at_end.to(tl.float64), mask=inside)
