"""Unreduced losses per word: logits ``(N, C)``, labels ``(N,)`` -> ``(N,)``, 0 where the label is -100."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from common.options import imported

TokenLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss, which gives easy examples less weight (Lin et al. 2017, eq. 4, with gamma 2)."""
    losses = cross_entropy(logits, labels)
    return (1 - (-losses).exp()) ** 2 * losses


def label_smoothing(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with label smoothing of 0.1 (Szegedy et al. 2016, sec. 7)."""
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)


LOSSES: dict[str, TokenLoss] = {"ce": cross_entropy, "focal": focal, "lsr": label_smoothing}


def loss_named(name: str) -> str:
    """Check that a loss exists, importing a custom one, ``module:function``, and return its name.

    Raises:
        ValueError: there is no such loss.
    """
    if name not in LOSSES:
        if ":" not in name:
            raise ValueError(f"--loss {name} is none of {', '.join(LOSSES)}; name your own as module:function")
        LOSSES[name] = imported(name, "--loss")
    return name
