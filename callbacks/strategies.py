"""Training with several passes per batch: adversarial training on perturbed embeddings, and R-Drop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from callbacks.base import Backward, Callback, Forward, TrainState


class ProjectedGradientDescent(Callback):
    """Adds the gradients at the worst embeddings that several steps find nearby (PGD; Madry et al. 2018, sec. 2.1).

    Each step goes along the gradient of the batch at the place reached; who leaves the ball around the embeddings is
    taken back to its surface. The gradients on the way count for nothing, those at the embeddings themselves and at
    the end do. They may be scaled, as float16 needs it: only their direction matters.

    Args:
        name: part of the names of the parameters that are disturbed.
        epsilon: radius of the ball around each of these parameters.
        alpha: length of a step.
        steps: how many there are.
    """

    def __init__(self, name: str, epsilon: float, alpha: float, steps: int) -> None:
        self._name = name
        self._epsilon, self._alpha, self._steps = epsilon, alpha, steps
        self._disturbed: list[nn.Parameter] = []
        self._learning: list[nn.Parameter] = []

    def on_train_begin(self, state: TrainState) -> None:
        named = {name: parameter for name, parameter in state.model.named_parameters() if parameter.requires_grad}
        self._learning = list(named.values())
        self._disturbed = [parameter for name, parameter in named.items() if self._name in name]
        if not self._disturbed:
            embeddings = ", ".join(name for name in named if "embed" in name)
            raise ValueError(
                f"the name of no parameter that learns contains {self._name!r} (--adv_name); there are {embeddings}"
            )

    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        earlier = _taken(self._disturbed)  # of other accumulation rounds
        loss = backward(last=False)
        directions = [parameter.grad for parameter in self._disturbed]
        _add(self._disturbed, earlier)
        originals = [parameter.detach().clone() for parameter in self._disturbed]
        for _ in range(self._steps - 1):
            self._move(directions, originals)
            counting = _taken(self._learning)
            backward(last=False)
            directions = [parameter.grad for parameter in self._disturbed]
            _put(self._learning, counting)
        self._move(directions, originals)
        backward()
        for parameter, original in zip(self._disturbed, originals, strict=True):
            parameter.data.copy_(original)
        return loss

    def _move(self, directions: Sequence[Tensor | None], originals: Sequence[Tensor]) -> None:
        for parameter, direction, original in zip(self._disturbed, directions, originals, strict=True):
            if direction is None:
                continue
            disturbance = parameter.data - original + self._alpha * _normed(direction)
            excess = (disturbance.norm() / self._epsilon).clamp(min=1.0)
            parameter.data.copy_(original + disturbance / excess)


class FastGradientMethod(ProjectedGradientDescent):
    """Adds the gradients at the worst nearby embeddings, found in one step (FGM; Miyato et al. 2017, sec. 3).

    Args:
        name: part of the names of the parameters that are disturbed.
        epsilon: length of the disturbance, along the gradient of the batch.
    """

    def __init__(self, name: str = "word_embeddings", epsilon: float = 1.0) -> None:
        super().__init__(name, epsilon, alpha=epsilon, steps=1)


def _normed(gradient: Tensor) -> Tensor:
    """The gradient at length 1; nothing where it has no direction, being zero or not finite. Waits for no device."""
    norm = gradient.norm()
    return torch.where((norm > 0) & norm.isfinite(), gradient / norm, 0.0)


def _taken(parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The gradients, which are none from now on."""
    gradients = [parameter.grad for parameter in parameters]
    _put(parameters, [None] * len(gradients))
    return gradients


def _put(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _add(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


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
