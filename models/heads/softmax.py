"""A tag a word, each chosen by itself."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from common.options import option
from models.losses import LOSS_TYPES, tag_losses
from models.tagger import Tagger


@dataclass(frozen=True)
class SoftmaxOptions:
    """Options of the softmax head."""

    loss_type: str = option("ce", "loss: cross-entropy, focal loss or label smoothing", LOSS_TYPES, common=True)


class BertSoftmaxForNer(Tagger):
    """Encoder, dropout and a linear layer.

    Its checkpoint is an ordinary ``AutoModelForTokenClassification`` checkpoint. ``config.tag_loss`` chooses the
    loss: ``ce``, ``focal`` or ``lsr``.
    """

    Options = SoftmaxOptions

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.tag_loss = getattr(config, "tag_loss", "ce")
        if self.tag_loss not in LOSS_TYPES:
            raise ValueError(f"tag_loss {self.tag_loss!r} is none of {', '.join(LOSS_TYPES)}")
        self.post_init()

    def sequence_losses(self, logits: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        B, W, C = logits.shape
        labels = labels.masked_fill(~word_mask, -100)
        return tag_losses(logits.reshape(B * W, C), labels.reshape(B * W), self.tag_loss).view(B, W).sum(1)  # (B,)

    def decode(self, logits: Tensor, word_mask: Tensor) -> Tensor:
        return logits.argmax(-1)  # (B, W)

    def span_confidences(
        self, logits: Tensor, word_mask: Tensor, spans: Tensor, inside: Tensor, after: Tensor
    ) -> Tensor:
        probabilities = logits.softmax(-1)  # (B, W, C)
        rows, first, last = spans.unbind(1)  # (N,) each
        L = inside.size(1)
        words = first[:, None] + torch.arange(L, device=spans.device)  # (N, L)
        in_span = words <= last[:, None]
        words = words.clamp(max=logits.size(1) - 1)
        of_words = (probabilities[rows[:, None], words] * inside).sum(-1)  # (N, L)
        following = (last + 1).clamp(max=logits.size(1) - 1)  # (N,)
        has_following = (last + 1 < logits.size(1)) & word_mask[rows, following]
        of_following = (probabilities[rows, following] * after).sum(-1)  # (N,)
        return of_words.masked_fill(~in_span, 1).prod(1) * of_following.masked_fill(~has_following, 1)  # words are free
