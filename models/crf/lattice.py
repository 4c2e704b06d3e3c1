"""The lattice of a batch in log space: for whatever is not worth a kernel of its own.

Words that are masked are taken out first, so that row b holds its words at 0 .. lengths[b] - 1. Emissions and the
scores of starting and ending are one potential a word, so the chain has no boundary terms.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .chains import Chains

NEGATIVE_INFINITY = float("-inf")
MOST_NUMBERS = 2**22  # that a computation holds at once beside its result: 32 MiB in double precision


class Lattice(NamedTuple):
    """`K` counts the words of a row that are not masked; what lies behind the last one means nothing."""

    potentials: Tensor  # (B, W, C) -inf for a tag that is not allowed
    scores: Tensor  # (C, C) -inf for a transition that is not legal
    lengths: Tensor  # (B,)
    columns: Tensor  # (B, W) where in the row each word came from; a permutation

    def present(self) -> Tensor:
        """Which places hold a word: (B, W) bool."""
        W = self.columns.size(1)
        return torch.arange(W, device=self.columns.device) < self.lengths[:, None]  # (B, W)

    def parts(self, numbers_a_row: int) -> Iterator[tuple[slice, "Lattice"]]:
        """The rows in parts that together need no more than `MOST_NUMBERS`, where a row needs so many."""
        B = len(self.lengths)
        size = max(1, MOST_NUMBERS // max(1, numbers_a_row))
        for begin in range(0, B, size):
            rows = slice(begin, begin + size)
            yield (
                rows,
                self._replace(potentials=self.potentials[rows], lengths=self.lengths[rows], columns=self.columns[rows]),
            )

    def at_columns(self, values: Tensor, padding: float) -> Tensor:
        """Put `values` (B, W, ...) of words back into their columns, and `padding` where masked."""
        rest = values.shape[2:]
        kept = torch.where(_expand(self.present(), values), values, padding)  # (B, W, ...)
        return torch.zeros_like(kept).scatter(1, _expand(self.columns, values).expand(-1, -1, *rest), kept)


def exact_type(device: torch.device) -> torch.dtype:
    """Double precision, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def scores_of(chains: Chains, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Emissions (B, W, C), start (C,), end (C,) and transitions (C, C) in `dtype`, -inf where not allowed or legal."""
    C = chains.emissions.size(2)
    emissions, start, end, transitions = (scores.to(dtype) for scores in chains[:4])
    if chains.legal is not None:
        start = start.masked_fill(~chains.legal[C, :C], NEGATIVE_INFINITY)
        end = end.masked_fill(~chains.legal[:C, C + 1], NEGATIVE_INFINITY)
        transitions = transitions.masked_fill(~chains.legal[:C, :C], NEGATIVE_INFINITY)
    if chains.allowed is not None:
        emissions = emissions.masked_fill(~chains.allowed, NEGATIVE_INFINITY)
    if chains.mask is not None:
        emissions = emissions.masked_fill(~chains.mask[:, :, None], 0)  # no NaN may reach a product
    return emissions, start, end, transitions


def lattice_of(chains: Chains, dtype: torch.dtype) -> Lattice:
    """The lattice of a batch, computed in `dtype`."""
    B, W, C = chains.emissions.shape
    device = chains.emissions.device
    potentials, start, end, scores = scores_of(chains, dtype)
    places = torch.arange(W, device=device)
    if chains.mask is None:
        lengths = torch.full((B,), W, device=device)
        columns = places.expand(B, W)
    else:
        lengths = chains.mask.sum(1)  # (B,)
        columns = chains.mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)  # (B, W)
        potentials = potentials.gather(1, columns[:, :, None].expand(B, W, C))  # (B, W, C)
    first = places == 0  # (W,)
    last = places == lengths[:, None] - 1  # (B, W)
    potentials = potentials + torch.where(first[:, None], start, 0) + torch.where(last[:, :, None], end, 0)
    return Lattice(potentials, scores, lengths, columns)


def log_forward(lattice: Lattice) -> Tensor:
    """log sum of exp(score) over the paths up to each word that end in each tag: (B, W, C)."""
    potentials, scores, lengths, _ = lattice
    alpha = potentials.clone()  # (B, W, C)
    for k in range(1, alpha.size(1)):
        before = alpha[:, k - 1]  # (B, C)
        step = (before[:, :, None] + scores).logsumexp(1) + potentials[:, k]  # (B, C)
        alpha[:, k] = torch.where((k < lengths)[:, None], step, before)
    return alpha


def log_backward(lattice: Lattice) -> Tensor:
    """log sum of exp(score) over what may follow each tag of each word: (B, W, C), 0 from the last word on."""
    potentials, scores, lengths, _ = lattice
    beta = torch.zeros_like(potentials)  # (B, W, C)
    for k in range(beta.size(1) - 2, -1, -1):
        after = beta[:, k + 1]  # (B, C)
        step = (scores + (potentials[:, k + 1] + after)[:, None, :]).logsumexp(2)  # (B, C)
        beta[:, k] = torch.where((k < lengths - 1)[:, None], step, after)
    return beta


def log_partition(lattice: Lattice, alpha: Tensor) -> Tensor:
    """The log-partition (B,), 0 for rows without words, from `log_forward`."""
    return torch.where(lattice.lengths > 0, alpha[:, -1:].logsumexp((1, 2)), 0)


def log_pairs(lattice: Lattice, alpha: Tensor, beta: Tensor) -> Tensor:
    """log P(tag k is i, tag k + 1 is j): (B, W - 1, C, C), -inf where there is no word k + 1."""
    arriving = lattice.potentials[:, 1:] + beta[:, 1:]  # (B, W - 1, C)
    total = log_partition(lattice, alpha)[:, None, None, None]
    pairs = alpha[:, :-1, :, None] + lattice.scores + arriving[:, :, None, :] - total  # (B, W - 1, C, C)
    return pairs.masked_fill(~lattice.present()[:, 1:, None, None], NEGATIVE_INFINITY)


def _expand(tensor: Tensor, like: Tensor) -> Tensor:
    """Give a (B, W) tensor as many dimensions as `like`."""
    return tensor.reshape(*tensor.shape, *[1] * (like.dim() - 2))
