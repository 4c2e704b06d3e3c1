"""Losses of a word's tag against its logits, each unreduced: ``(N, C), (N,) -> (N,)``."""

import torch.nn.functional as F
from torch import Tensor

LOSS_TYPES = ("ce", "focal", "lsr")


def tag_losses(logits: Tensor, labels: Tensor, loss_type: str) -> Tensor:
    """The loss of each of N tags, in float32; 0 where the label is -100.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
        loss_type: ``ce``, cross-entropy; ``focal``, which gives easy tags less weight (Lin et al. 2017, eq. 4, with
            gamma 2); ``lsr``, label smoothing by 0.1 (Szegedy et al. 2016, sec. 7).
    """
    logits = logits.float()
    smoothing = 0.1 if loss_type == "lsr" else 0.0
    losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)  # (N,)
    if loss_type == "focal":
        probability = (-losses).exp()
        losses = (1 - probability) ** 2 * losses
    return losses
