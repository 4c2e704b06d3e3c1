"""The k best paths, by k-best Viterbi (Schwartz and Chow 1990): exact, for each tag the k best ways to arrive there."""

import torch
from torch import Tensor

from .lattice import NEGATIVE_INFINITY, Lattice


def nbest_paths(lattice: Lattice, k: int) -> tuple[Tensor, Tensor]:
    """The k best paths of each row (B, W, k), best first, and their scores (B, k), -inf where there is no such path."""
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
