"""Training on disturbed embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor

from callbacks.base import Callback, TrainState


class FastGradientMethod(Callback):
    """Adds the gradients at the worst nearby embeddings (FGM; Miyato et al. 2017, sec. 3).

    Args:
        name: part of the names of the parameters that are disturbed.
        epsilon: length of the disturbance, along the gradient.
    """

    def __init__(self, name: str = "word_embeddings", epsilon: float = 1.0) -> None:
        self._name = name
        self._epsilon = epsilon

    def on_train_begin(self, state: TrainState) -> None:
        names = [name for name, _ in state.model.named_parameters()]
        if not any(self._name in name for name in names):
            embeddings = ", ".join(name for name in names if "embed" in name)
            raise ValueError(f"no parameter's name contains {self._name!r} (--adv_name); there are {embeddings}")

    def after_backward(self, state: TrainState, backward: Callable[[], object]) -> None:
        originals: list[tuple[Tensor, Tensor]] = []
        for name, parameter in state.model.named_parameters():
            if self._name in name and parameter.grad is not None:
                originals.append((parameter.data, parameter.data.clone()))
                norm = parameter.grad.norm()
                direction = torch.where(norm > 0, parameter.grad / norm, 0.0)  # no look at norm: no host sync
                parameter.data.add_(self._epsilon * direction)
        backward()
        for data, original in originals:
            data.copy_(original)
