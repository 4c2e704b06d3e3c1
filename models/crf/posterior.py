"""What else the distribution over paths tells: pairs of tags, its entropy, samples of it.

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
    alpha, beta = forward_variables(lattice), log_sweep(lattice, backwards=True)  # (B, W, C)
    for rows, part in lattice.parts(4 * W * C * C):
        between = alpha.new_zeros(*part.columns.shape, C, C)  # (b, W, C, C)
        between[:, :-1] = log_pairs(part, alpha[rows], beta[rows]).exp()
        found[rows] = part.at_columns(between, 0)
    return found


def entropy(lattice: Lattice) -> Tensor:
    """The entropy of the distribution over paths, in nats: (B,).

    One sweep carries, for each tag, the entropy of the paths that end in it (Hernando, Crespi and Cybenko 2005).
    """
    alpha = forward_variables(lattice)  # (B, W, C)
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
    alpha = forward_variables(lattice)  # (B, W, C)
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


def forward_variables(lattice: Lattice) -> Tensor:
    """The forward variables (B, W, C), if every row has a legal path."""
    alpha = log_sweep(lattice, backwards=False)  # (B, W, C)
    raise_for_rows(torch.where(log_partition(lattice, alpha).isfinite(), SCALED, NO_PATH))
    return alpha


def _normalised(logits: Tensor, dim: int) -> Tensor:
    """exp(logits) divided by their sum, 0 where all of them are -inf."""
    top = logits.amax(dim, keepdim=True)
    weights = (logits - torch.where(top == NEGATIVE_INFINITY, 0, top)).exp()
    return weights / weights.sum(dim, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
