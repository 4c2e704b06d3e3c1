"""Two passes with different dropout that are to agree (R-Drop; Wu et al. 2021)."""

import torch
from torch import Tensor, nn

from models.tagger import Tagger, TaggerOutput


class RDrop(nn.Module):
    """A tagger in training, whose loss is the mean of two passes' plus what they disagree about.

    They disagree by the symmetric Kullback-Leibler divergence of each word's tag distribution: half the sum of both
    directions. With a CRF too this is the softmax over the word's emissions, not its marginals.

    Args:
        tagger: learns; is called once, with every sequence twice, so that a word's two dropout masks differ.
        alpha: weight of the divergence.
    """

    def __init__(self, tagger: Tagger, alpha: float) -> None:
        super().__init__()
        self.tagger = tagger
        self.alpha = alpha

    def forward(self, num_items_in_batch: int, **inputs: Tensor) -> TaggerOutput:
        """The loss of labelled sequences, and the logits of the first pass.

        Args:
            num_items_in_batch: divides both sums over words, see `Tagger.forward`.
            inputs: of `Tagger.forward`, with ``labels`` of shape ``(B, W)``.
        """
        twice = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
        output = self.tagger(**twice, num_items_in_batch=2 * num_items_in_batch)
        assert output.loss is not None
        assert output.logits is not None
        first, second = output.logits.float().log_softmax(-1).chunk(2)  # (B, W, C) each
        divergences = ((first.exp() - second.exp()) * (first - second)).sum(-1) / 2  # (B, W)
        disagreement = divergences.masked_fill(inputs["labels"] == -100, 0).sum() / num_items_in_batch
        return TaggerOutput(loss=output.loss + self.alpha * disagreement, logits=output.logits.chunk(2)[0])
