"""Two passes with different dropout that are to agree (R-Drop; Wu et al. 2021)."""

from typing import Any

import torch

from callbacks.base import Callback, Forward, TrainState


class RDrop(Callback):
    """Makes the loss the mean of two passes' losses plus their disagreement.

    The disagreement is the symmetric Kullback-Leibler divergence of each word's tag distribution: half the sum of both
    directions. With a CRF this is the softmax over the word's emissions, not its marginals.

    Args:
        alpha: weight of the divergence.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def around_forward(self, state: TrainState, forward: Forward, batch: dict[str, Any]) -> Any:
        """One pass over every sequence twice, so that a word's two dropout masks differ."""
        words = batch["num_items_in_batch"]
        twice = {name: torch.cat([value, value]) for name, value in batch.items() if name != "num_items_in_batch"}
        output = forward({**twice, "num_items_in_batch": 2 * words})
        log_probabilities: Any = state.model.log_probabilities
        first, second = log_probabilities(output.logits).chunk(2)  # (B, W, C) each
        divergences = ((first.exp() - second.exp()) * (first - second)).sum(-1) / 2  # (B, W)
        unknown = (batch["labels"] == -100).reshape(*divergences.shape, -1).all(-1)  # (B, W)
        disagreement = divergences.masked_fill(unknown, 0).sum() / words
        return type(output)(loss=output.loss.sum() + self._alpha * disagreement, logits=output.logits.chunk(2)[0])
