"""The hooks of the training loop, and the one object that they see."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer


@dataclass
class TrainState:
    """Where the training stands.

    Args:
        model: without the wrappers of DataParallel or DDP.
        optimizer: its groups carry a ``name``.
        total_steps: optimiser steps of the whole run.
        steps_per_epoch: optimiser steps of the first epoch; with a token budget others differ by a few.
        is_main: whether this process is the one that writes.
        step: optimiser steps done.
        loss: mean loss a word over the steps since it was last logged.
        words_per_second: of all processes, over the same steps.
        metrics: scores of the last evaluation.
    """

    model: nn.Module
    optimizer: Optimizer
    total_steps: int
    steps_per_epoch: int
    is_main: bool = True
    step: int = 0
    loss: float = float("nan")
    words_per_second: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch

    @property
    def learning_rates(self) -> dict[str, float]:
        """The present rate of each part of the model."""
        return {group["name"].partition("/")[0]: group["lr"] for group in self.optimizer.param_groups}


class Callback:
    """Does nothing at every point of the loop; subclass and override what you need."""

    def on_train_begin(self, state: TrainState) -> None:
        """Before the first step."""

    def after_backward(self, state: TrainState, backward: Callable[[], object]) -> None:
        """Gradients of a batch are there; ``backward()`` adds those of the same batch under the present weights."""

    def on_step(self, state: TrainState) -> None:
        """An optimiser step is done."""

    def on_log(self, state: TrainState) -> None:
        """Loss and speed are fresh."""

    def on_evaluate(self, state: TrainState) -> None:
        """The dev split was scored; see ``state.metrics``."""

    def on_train_end(self, state: TrainState) -> None:
        """After the last step."""


class Callbacks(Callback):
    """Several callbacks as one, called in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)

    def on_train_begin(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_train_begin(state)

    def after_backward(self, state: TrainState, backward: Callable[[], object]) -> None:
        for callback in self._callbacks:
            callback.after_backward(state, backward)

    def on_step(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_step(state)

    def on_log(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_log(state)

    def on_evaluate(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_evaluate(state)

    def on_train_end(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_train_end(state)
