"""The best paths as a graph for torch.export: both walks over the words are scans, so any number of words may come."""

import torch
from torch import Tensor
from torch._higher_order_ops import scan

from .chains import Chains
from .lattice import exact_type, scores_of


def decode_in_graph(chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
    """As `Backend.decode`, except that a graph cannot raise: a row without a legal path is `padding` throughout."""
    B, _, C = chains.emissions.shape
    # torch.export differentiates a scan of what has gradients, and fails; under torch.no_grad as well.
    given = scores_of(chains, chains.emissions.dtype)
    emissions, start, end, scores = (tensor.detach() for tensor in given)  # (B, W, C), (C,), (C,), (C, C)
    mask = torch.ones_like(emissions[:, :, 0], dtype=torch.bool) if chains.mask is None else chains.mask  # (B, W)
    follows = mask & (mask.long().cumsum(1) > 1)  # (B, W) a word that has one before it
    tags = torch.arange(C, device=emissions.device)

    def step(best: Tensor, word: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        emission, moves = word  # (B, C), (B,)
        arriving, origin = (best[:, :, None] + scores).max(1)  # (B, C)
        best = torch.where(moves[:, None], arriving, best) + emission  # (B, C)
        # Brought to a largest of 0, else the scores of a long text lose the digits that decide.
        top = best.amax(1, keepdim=True).clamp(min=torch.finfo(best.dtype).min)  # (B, 1)
        return best - top, (torch.where(moves[:, None], origin, tags), top)

    def step_back(tag: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
        return origin.gather(1, tag[:, None])[:, 0], tag.clone()  # (B,)

    words = (emissions.transpose(0, 1).contiguous(), follows.T.contiguous())  # (W, B, C), (W, B)
    best, (origins, tops) = scan(step, start.expand(B, C).contiguous(), words)  # (B, C), (W, B, C), (W, B, 1)
    score, tag = (best + end).max(1)  # (B,)
    score = (score + tops[:, :, 0].sum(0, dtype=exact_type(best.device))).to(best.dtype)  # (B,)
    _, path = scan(step_back, tag, origins, reverse=True)  # (W, B)
    empty = ~mask.any(1)  # (B,)
    hidden = ~mask | ~score.isfinite()[:, None]  # (B, W)
    return path.T.masked_fill(hidden, padding), score.masked_fill(empty, 0)
