"""What else the distribution over paths tells: pairs of tags, its entropy, samples of it, how probable a span is.

All of it raises ValueError for a row without a legal path, for which there is no distribution.
"""

import torch
from torch import Tensor

from .backend import log_sweep
from .chains import NO_PATH, SCALED, raise_for_rows
from .lattice import NEGATIVE_INFINITY, Lattice, log_pairs, log_partition


def pairs(lattice: Lattice, dtype: torch.dtype) -> Tensor:
    """P(tag k is i, next tag is j): (B, W, C, C) in `dtype`, at the column of word k, 0 at the last one."""
    B, W, C = lattice.potentials.shape
    found = lattice.potentials.new_zeros(B, W, C, C, dtype=dtype)
    alpha, beta = _forward(lattice), log_sweep(lattice, backwards=True)  # (B, W, C)
    for rows, part in lattice.parts(4 * W * C * C):
        between = alpha.new_zeros(*part.columns.shape, C, C)  # (b, W, C, C)
        between[:, :-1] = log_pairs(part, alpha[rows], beta[rows]).exp()
        found[rows] = part.at_columns(between, 0)
    return found


def entropy(lattice: Lattice) -> Tensor:
    """The entropy of the distribution over paths, in nats: (B,).

    One sweep carries, for each tag, the entropy of the paths that end in it (Hernando, Crespi and Cybenko 2005).
    """
    alpha = _forward(lattice)  # (B, W, C)
    B, W, C = alpha.shape
    carried = alpha.new_zeros(B, C)
    for k in range(1, W):
        before = _normalised(alpha[:, k - 1, :, None] + lattice.scores, 1)  # (B, C, C) P(i before | j here)
        step = (torch.special.entr(before) + before * carried[:, :, None]).sum(1)  # (B, C)
        carried = torch.where((k < lattice.lengths)[:, None], step, carried)
    last = _normalised(alpha[:, -1:], 2)  # (B, 1, C)
    total = (torch.special.entr(last) + last * carried[:, None]).sum((1, 2))  # (B,)
    return torch.where(lattice.lengths > 0, total, 0)


def sample(lattice: Lattice, n: int, generator: torch.Generator | None) -> Tensor:
    """n independent paths of each row: (B, W, n). Filter forward, then draw backward."""
    alpha = _forward(lattice)  # (B, W, C)
    B, W, C = alpha.shape
    into = lattice.scores.T  # (C, C) row j: transitions into tag j

    def draw(logits: Tensor) -> Tensor:
        uniform = torch.rand(n, B, C, dtype=alpha.dtype, device=alpha.device, generator=generator)
        return (logits - (-uniform.log()).log()).argmax(2)  # (n, B): the maximum of Gumbel-perturbed scores

    paths = lattice.columns.new_empty(B, W, n)
    tag = lattice.columns.new_zeros(n, B)
    for k in range(W - 1, -1, -1):
        followed = (k < lattice.lengths - 1)[:, None]  # (B, 1)
        tag = draw(alpha[:, k] + torch.where(followed, into[tag], 0))  # (n, B)
        paths[:, k] = tag.T
    return paths


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
    alpha, beta = _forward(lattice), log_sweep(lattice, backwards=True)  # (B, W, C)
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


def _forward(lattice: Lattice) -> Tensor:
    """The forward variables (B, W, C), if every row has a legal path."""
    alpha = log_sweep(lattice, backwards=False)  # (B, W, C)
    raise_for_rows(torch.where(log_partition(lattice, alpha).isfinite(), SCALED, NO_PATH))
    return alpha


def _normalised(logits: Tensor, dim: int) -> Tensor:
    """exp(logits) divided by their sum, 0 where all of them are -inf."""
    top = logits.amax(dim, keepdim=True)
    weights = (logits - torch.where(top == NEGATIVE_INFINITY, 0, top)).exp()
    return weights / weights.sum(dim, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
