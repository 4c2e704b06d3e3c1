"""Training on disturbed embeddings."""

import torch
from torch import Tensor, nn

from callbacks.base import Backward, Callback, TrainState


class FastGradientMethod(Callback):
    """Adds the gradients at the worst nearby embeddings (FGM; Miyato et al. 2017, sec. 3).

    Args:
        name: part of the names of the parameters that are disturbed.
        epsilon: length of the disturbance, along the gradient of the batch.
    """

    def __init__(self, name: str = "word_embeddings", epsilon: float = 1.0) -> None:
        self._name = name
        self._epsilon = epsilon
        self._disturbed: list[nn.Parameter] = []

    def on_train_begin(self, state: TrainState) -> None:
        named = dict(state.model.named_parameters())
        self._disturbed = [parameter for name, parameter in named.items() if self._name in name]
        if not self._disturbed:
            embeddings = ", ".join(name for name in named if "embed" in name)
            raise ValueError(f"no parameter's name contains {self._name!r} (--adv_name); there are {embeddings}")

    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        earlier = [parameter.grad for parameter in self._disturbed]  # of other accumulation rounds
        for parameter in self._disturbed:
            parameter.grad = None
        loss = backward(last=False)
        originals = [parameter.detach().clone() for parameter in self._disturbed]
        for parameter, gradient in zip(self._disturbed, earlier, strict=True):
            if parameter.grad is None:
                continue
            norm = parameter.grad.norm()
            direction = torch.where(norm > 0, parameter.grad / norm, 0.0)  # no look at norm: no host sync
            parameter.data.add_(self._epsilon * direction)
            if gradient is not None:
                parameter.grad += gradient
        backward()
        for parameter, original in zip(self._disturbed, originals, strict=True):
            parameter.data.copy_(original)
        return loss
