"""The same values by plain torch in double precision: slow, but differentiable any number of times.

The kernels compute a value and its gradient. Whatever needs the gradient of a gradient comes here: regularisation by
entropy, distillation of marginals, `create_graph`. Marginals are derivatives of the log-partition (Eisner 2016), so
they are differentiable as it is.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .chains import NO_PATH, NO_SUCH_TAG, SCALED, Chains, raise_for_rows
from .lattice import Lattice, exact_type, lattice_of
from .torch_backend import path_score

# In place of -inf, whose derivatives are not numbers: exp of it is zero, and sums of it stay finite.
IMPOSSIBLE = -1e30


class Expectations(NamedTuple):
    """Derivatives of the log-partition."""

    unary: Tensor  # (B, W, C) P(tag) of each word
    pairs: Tensor | None  # (B, W, C, C) P(tag i, next word's tag j), at the first of the two words
    entropy: Tensor  # (B,) in nats


def value(chains: Chains, tags: Tensor | None) -> Tensor:
    """The log-partition of each row, or the log-likelihood of `tags` (B, W): (B,)."""
    lattice = _finite(lattice_of(chains, exact_type(chains.emissions.device)))
    partition = _partition(lattice, lattice.scores.expand(len(lattice.lengths), 1, *lattice.scores.shape))
    if tags is None:
        return partition
    score, _ = path_score(lattice, tags)  # (B,)
    return torch.where(score > IMPOSSIBLE / 2, score, float("-inf")) - partition


def expectations(chains: Chains, pairwise: bool) -> Expectations:
    """Marginals and entropy, differentiable by the scores of `chains`."""
    with torch.enable_grad():
        emissions = chains.emissions
        if not emissions.requires_grad:
            emissions = emissions.detach().requires_grad_()
        lattice = _finite(lattice_of(chains._replace(emissions=emissions), exact_type(emissions.device)))
        B, W, C = emissions.shape
        steps = max(W - 1, 1) if pairwise else 1
        scores = lattice.scores.expand(B, steps, C, C).clone()  # their derivatives are the pairs
        partition = _partition(lattice, scores)
        given = [emissions, lattice.potentials, scores]
        unary, states, pairs = torch.autograd.grad(partition.sum(), given, create_graph=True, materialize_grads=True)
        # -sum p log p over paths: the log-partition less the expected score
        entropy = partition - (states * lattice.potentials).sum((1, 2)) - (pairs * scores).sum((1, 2, 3))
        entropy = entropy.to(emissions.dtype)
    if not pairwise:
        return Expectations(unary, None, entropy)
    pairs = torch.cat([pairs[:, : W - 1], pairs.new_zeros(B, min(W, 1), C, C)], 1)  # (B, W, C, C)
    return Expectations(unary, lattice.at_columns(pairs, 0), entropy)


def log_factors(chains: Chains, tags: Tensor, weight: Tensor) -> Tensor:
    """The log-likelihood of tags, each word's share of it weighted: (B,), -inf for tags of an illegal path.

    By the chain rule, the share of a word is log P(its tag | the tags of the words before).

    Args:
        tags: (B, W).
        weight: (C,) of each tag.

    Raises:
        ValueError: a row has no legal path, or a tag that does not exist.
    """
    C = len(weight)
    present = torch.ones_like(tags, dtype=torch.bool) if chains.mask is None else chains.mask
    wrong = (present & ((tags < 0) | (tags >= C))).any(1)  # (B,)
    lattice = _finite(lattice_of(chains, exact_type(chains.emissions.device)))
    potentials, scores, lengths, columns = lattice
    W = potentials.size(1)
    after = [torch.zeros_like(potentials[:, 0])]  # the log-partition of what follows each tag, from the last word on
    for k in range(W - 1, 0, -1):
        step = (scores + (potentials[:, k] + after[-1])[:, None, :]).logsumexp(2)  # (B, C)
        after.append(torch.where((k < lengths)[:, None], step, after[-1]))
    onwards = potentials + torch.stack(after[::-1], 1)  # (B, W, C)
    impossible = (lengths > 0) & (onwards[:, 0].amax(1) < IMPOSSIBLE / 2)  # (B,)
    raise_for_rows(torch.where(wrong, NO_SUCH_TAG, torch.where(impossible, NO_PATH, SCALED)))
    tags = tags.gather(1, columns).clamp(0, C - 1)  # (B, W)
    arriving = torch.cat([torch.zeros_like(onwards[:, :1]), scores[tags[:, :-1]]], 1)  # (B, W, C)
    shares = (arriving + onwards).log_softmax(2).gather(2, tags[:, :, None])[:, :, 0]  # (B, W)
    shares = torch.where(lattice.present(), shares * weight.to(shares.dtype)[tags], 0)
    return torch.where((shares > IMPOSSIBLE / 2).all(1), shares.sum(1), float("-inf"))


def _finite(lattice: Lattice) -> Lattice:
    return lattice._replace(
        potentials=lattice.potentials.clamp(min=IMPOSSIBLE), scores=lattice.scores.clamp(min=IMPOSSIBLE)
    )


def _partition(lattice: Lattice, scores: Tensor) -> Tensor:
    """The log-partition (B,) with scores (B, W - 1, C, C) of each transition, or (B, 1, C, C) of all of them."""
    potentials, lengths = lattice.potentials, lattice.lengths
    if potentials.size(1) == 0:
        return potentials.sum((1, 2))
    alpha = potentials[:, 0]  # (B, C)
    for k in range(1, potentials.size(1)):
        step = (alpha[:, :, None] + scores[:, min(k, scores.size(1)) - 1]).logsumexp(1) + potentials[:, k]  # (B, C)
        alpha = torch.where((k < lengths)[:, None], step, alpha)
    return torch.where(lengths > 0, alpha.logsumexp(1), 0)
