"""Means of the weights over the steps: they vary less than the weights, and often score better."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from callbacks.base import Callback, TrainState


class WeightAveraging(Callback):
    """Puts a mean in the place of the weights while dev is scored, so that the best model holds it, and in the end.

    Checkpoints to resume from hold the weights themselves, and the mean beside them. Frozen weights are their own
    mean. Subclasses say which steps count, and how much.
    """

    _REMEMBERED = ("_means", "_count")

    def __init__(self) -> None:
        self._means: list[Tensor] = []
        self._count = 0

    def average_of(self, state: TrainState, count: int) -> Callable[[Any, Any, Any], None] | None:
        """What brings the weights after this step into the means of ``count`` weights; ``None``: they do not count."""
        raise NotImplementedError

    def on_train_begin(self, state: TrainState) -> None:
        weights = _weights(state)
        if self._means and len(self._means) != len(weights):
            raise ValueError(
                f"there are means of {len(self._means)} weights from before, but {len(weights)} weights that learn: "
                "go on with the --freeze_layers and --freeze_embeddings of before"
            )
        self._means = [mean.to(weight.device) for mean, weight in zip(self._means, weights, strict=False)]

    def on_step(self, state: TrainState) -> None:
        average = self.average_of(state, self._count)
        if average is None:
            return
        if self._means:
            average(self._means, _weights(state), self._count)
        else:
            self._means = [weight.clone() for weight in _weights(state)]
        self._count += 1

    def before_evaluate(self, state: TrainState) -> None:
        self._exchange(state)

    def after_evaluate(self, state: TrainState) -> None:
        self._exchange(state)

    def on_train_end(self, state: TrainState) -> None:
        self._exchange(state)

    @torch.no_grad()
    def _exchange(self, state: TrainState) -> None:
        for weight, mean in zip(_weights(state), self._means, strict=bool(self._means)):
            weight_before = weight.clone()
            weight.copy_(mean)
            mean.copy_(weight_before)


class ExponentialAverage(WeightAveraging):
    """Each step moves the mean a little towards the weights (Polyak and Juditsky 1992).

    The first steps move it more, so that it soon forgets where the training began: the n-th leaves it a share of
    ``min(decay, (1 + n) / (10 + n))``.

    Args:
        decay: share of itself that the mean keeps in a step; 0.99 averages over about the last 100 steps.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay

    def average_of(self, state: TrainState, count: int) -> Callable[[Any, Any, Any], None]:
        return get_ema_multi_avg_fn(min(self._decay, (1 + count) / (10 + count)))


class StochasticWeightAverage(WeightAveraging):
    """The mean over all steps of the last part of the run (SWA; Izmailov et al. 2018, who take one an epoch).

    Until that part begins the weights themselves are scored. Goes well with a rate that stays constant.

    Args:
        start: share of the run before the first step that counts.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self._start = start

    def average_of(self, state: TrainState, count: int) -> Callable[[Any, Any, Any], None] | None:
        return get_swa_multi_avg_fn() if state.step > self._start * state.total_steps else None


def _weights(state: TrainState) -> list[Tensor]:
    return [parameter.detach() for parameter in state.model.parameters() if parameter.requires_grad]
