"""Probabilities of entities: of given ones, and all that are probable enough. Exact: shares of all paths."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .backend import log_sweep
from .lattice import MOST_NUMBERS, NEGATIVE_INFINITY, Lattice, log_partition
from .posterior import forward_variables


class SpanTags(NamedTuple):
    """The tags of the words in and around an entity, for each of K types: all (K, C) bool."""

    only: Tensor  # of the word of an entity of one word
    first: Tensor  # of the first word of a longer one
    middle: Tensor  # of each word between the first and the last
    last: Tensor
    before: Tensor  # tags of the word before that leave the first word a beginning
    after_only: Tensor  # tags of the word after that do not continue an entity of one word
    after_last: Tensor  # the same for a longer one

    def at(self, types: Tensor) -> "SpanTags":
        """Those of these types (N,): all (N, C)."""
        return SpanTags(*(tags[types] for tags in self))


class ProbableSpans(NamedTuple):
    """N spans: row, type, first and last column, and probability, all (N,)."""

    rows: Tensor
    types: Tensor
    firsts: Tensor
    lasts: Tensor
    probabilities: Tensor


def span_probability(
    lattice: Lattice, spans: Tensor, inside: Tensor, before: Tensor | None, after: Tensor | None
) -> Tensor:
    """P(the words of each span have tags `inside`, its neighbours tags `before` and `after`): (N,).

    Args:
        lattice: B rows.
        spans, inside, before, after: see `CRF.span_confidence`.
    """
    B, W, C = lattice.potentials.shape
    N, L = inside.shape[:2]
    everything = inside.new_ones(N, C)
    before, after = everything if before is None else before, everything if after is None else after
    for name, tensor, shape in (
        ("spans", spans, (N, 3)),
        ("inside", inside, (N, L, C)),
        ("before", before, (N, C)),
        ("after", after, (N, C)),
    ):
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if N == 0:
        return lattice.potentials.new_zeros(0)
    rows, columns = spans[:, 0], spans[:, 1:]
    if not bool(((rows >= 0) & (rows < B) & (columns >= 0).all(1) & (columns < W).all(1)).all()):
        raise ValueError(f"spans must lie in a batch of {B} rows of {W} words")
    places = lattice.columns.argsort(1)[rows].gather(1, columns)  # (N, 2) the inverse of the permutation
    first, last = places.unbind(1)  # (N,) counted in words that are not masked
    length = last - first + 1  # (N,)
    if not bool(((places < lattice.lengths[rows, None]).all(1) & (length >= 1) & (length <= L)).all()):
        raise ValueError(f"a span begins or ends at a masked word, or has not 1 to {L} words")
    alpha, beta = forward_variables(lattice), log_sweep(lattice, backwards=True)  # (B, W, C)
    total = log_partition(lattice, alpha)[rows]  # (N,)

    def at(values: Tensor, place: Tensor) -> Tensor:
        return values[rows, place.clamp(0, values.size(1) - 1)]  # (N, C)

    def step(state: Tensor, place: Tensor, tags: Tensor) -> Tensor:
        arrived = (state[:, :, None] + lattice.scores).logsumexp(1) + at(lattice.potentials, place)  # (N, C)
        return arrived.masked_fill(~tags, NEGATIVE_INFINITY)

    entering = at(alpha, first - 1).masked_fill(~before, NEGATIVE_INFINITY)  # (N, C)
    opening = at(lattice.potentials, first).masked_fill(~inside[:, 0], NEGATIVE_INFINITY)  # (N, C)
    state = torch.where((first > 0)[:, None], step(entering, first, inside[:, 0]), opening)
    for k in range(1, L):
        state = torch.where((first + k <= last)[:, None], step(state, first + k, inside[:, k]), state)
    has_next = (last + 1 < lattice.lengths[rows])[:, None]  # (N, 1)
    state = torch.where(has_next, step(state, last + 1, after) + at(beta, last + 1), state)
    return (state.logsumexp(1) - total).exp().clamp(max=1)


def probable_spans(lattice: Lattice, tags: SpanTags, threshold: float) -> ProbableSpans:
    """All spans that are exactly an entity with a probability of at least `threshold`.

    Entities grow from their first word, word by word. The probability that one has begun and goes on bounds those of
    all that are longer, so growing stops where it is too small: no length needs to be given.
    """
    alpha, beta = forward_variables(lattice), log_sweep(lattice, backwards=True)  # (B, W, C)
    C = alpha.size(2)
    if alpha.size(1) == 0:
        nothing = lattice.columns.new_zeros(0)
        return ProbableSpans(nothing, nothing, nothing, nothing, alpha.new_zeros(0))
    growth = _Growth(lattice, alpha, lattice.potentials + beta, log_partition(lattice, alpha))
    words = (alpha + beta - growth.total[:, None, None]).exp()  # (B, W, C)
    bounds = words @ (tags.only | tags.first).to(words.dtype).T  # (B, W, K)
    starts = (bounds >= threshold * (1 - 1e-9)) & lattice.present()[:, :, None]
    parts = starts.nonzero().split(max(1, MOST_NUMBERS // (2 * C * C)))  # (N, 3) each
    found = [span for part in parts for span in growth.from_starts(part, tags, threshold)]
    spans = torch.cat([places for places, _ in found])  # (N, 4)
    rows, types, firsts, lasts = spans.unbind(1)
    columns, probabilities = lattice.columns, torch.cat([values for _, values in found])
    return ProbableSpans(rows, types, columns[rows, firsts], columns[rows, lasts], probabilities.clamp(max=1))


class _Growth(NamedTuple):
    """What growing entities read: forward variables, potentials with what may follow (B, W, C), log-partition (B,)."""

    lattice: Lattice
    alpha: Tensor
    ahead: Tensor
    total: Tensor

    def from_starts(self, starts: Tensor, tags: SpanTags, threshold: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Probable entities that begin at `starts` (N, 3) row, word, type: (n, 4) row, type, first, last; and (n,)."""
        rows, words, types = starts.unbind(1)  # (N,)
        own = tags.at(types)
        entering = self.alpha[rows, (words - 1).clamp(min=0)].masked_fill(~own.before, NEGATIVE_INFINITY)  # (N, C)
        entering = (entering[:, :, None] + self.lattice.scores).logsumexp(1) + self.lattice.potentials[rows, words]
        state = torch.where((words > 0)[:, None], entering, self.lattice.potentials[rows, words])  # (N, C)
        ended, after = state.masked_fill(~own.only, NEGATIVE_INFINITY), own.after_only
        state = state.masked_fill(~own.first, NEGATIVE_INFINITY)
        firsts = words
        while True:
            probabilities = self.share(ended, rows, words, after)  # (N,)
            chosen = probabilities >= threshold
            yield torch.stack([rows, types, firsts, words], 1)[chosen], probabilities[chosen]
            goes_on = words + 1 < self.lattice.lengths[rows]
            goes_on &= self.share(state, rows, words, own.middle | own.last) >= threshold * (1 - 1e-9)
            if not bool(goes_on.any()):
                return
            rows, types, firsts, words, state = (one[goes_on] for one in (rows, types, firsts, words, state))
            own, words = tags.at(types), words + 1
            arrived = (state[:, :, None] + self.lattice.scores).logsumexp(1) + self.lattice.potentials[rows, words]
            ended, after = arrived.masked_fill(~own.last, NEGATIVE_INFINITY), own.after_last
            state = arrived.masked_fill(~own.middle, NEGATIVE_INFINITY)  # (N, C)

    def share(self, state: Tensor, rows: Tensor, words: Tensor, following: Tensor) -> Tensor:
        """The share of paths (N,) that are in `state` (N, C) at these words and go on to tags `following`, or end."""
        ahead = self.ahead[rows, (words + 1).clamp(max=self.ahead.size(1) - 1)]  # (N, C)
        ahead = ahead.masked_fill(~following, NEGATIVE_INFINITY)
        on = (state[:, :, None] + self.lattice.scores + ahead[:, None, :]).logsumexp((1, 2))  # (N,)
        ends = words + 1 >= self.lattice.lengths[rows]
        return (torch.where(ends, state.logsumexp(1), on) - self.total[rows]).exp()
