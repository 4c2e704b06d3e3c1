"""The k best paths, by k-best Viterbi (Schwartz and Chow 1990): exact, for each tag the k best ways to arrive there."""

import torch
from torch import Tensor

from .lattice import NEGATIVE_INFINITY, Lattice


def nbest_paths(lattice: Lattice, k: int) -> tuple[Tensor, Tensor]:
    """The k best paths of each row (B, W, k), best first, and their scores (B, k), -inf where there is no such path.

    A row without words has one path, of score 0.
    """
    B, W, C = lattice.potentials.shape
    paths, scores = lattice.columns.new_zeros(B, W, k), lattice.potentials.new_zeros(B, k)
    for rows, part in lattice.parts((W + 2 * C) * C * k):
        paths[rows], scores[rows] = _search(part, k)
    best = torch.arange(k, device=scores.device) == 0  # (k,)
    of_nothing = torch.where(best, 0.0, NEGATIVE_INFINITY).to(scores.dtype)  # (k,)
    return paths, torch.where((lattice.lengths == 0)[:, None], of_nothing, scores)


def _search(lattice: Lattice, k: int) -> tuple[Tensor, Tensor]:
    potentials, scores, lengths, _ = lattice
    B, W, C = potentials.shape
    states = torch.arange(C * k, device=potentials.device)  # state i * k + r: the r-th best way to tag i
    best = potentials.new_full((B, C, k), NEGATIVE_INFINITY)
    best[:, :, 0] = potentials[:, :1].sum(1)  # zero if there are no words
    origins = []  # W - 1 times (B, C * k), the state before
    for w in range(1, W):
        ways = (best[:, :, :, None] + scores[:, None, :]).flatten(1, 2)  # (B, C * k, C)
        step, origin = ways.topk(k, dim=1)  # (B, k, C)
        alive = (w < lengths)[:, None, None]  # (B, 1, 1)
        best = torch.where(alive, step.transpose(1, 2) + potentials[:, w, :, None], best)  # (B, C, k)
        origins.append(torch.where(alive[:, :, 0], origin.transpose(1, 2).flatten(1), states))
    score, state = best.flatten(1).topk(k, dim=1)  # (B, k)
    path = [state // k]
    for origin in reversed(origins):
        state = origin.gather(1, state)  # (B, k)
        path.append(state // k)
    return torch.stack(path[::-1], 1)[:, :W], score
