"""Means of the weights under Lightning."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.averaging import WeightAveraging
from callbacks.base import TrainState


class AveragedWeights(Callback):
    """Has the model scored, and kept as the best, with a mean of its weights.

    The mean takes their place from the start of an epoch's scoring to its end, when Lightning has kept the best
    checkpoint; callbacks before this one see it there, those behind it the weights themselves. A checkpoint says
    which of the two are its model's.

    Args:
        averaging: which mean.
        total_steps: says how many optimiser steps the training has, once it begins.
    """

    def __init__(self, averaging: WeightAveraging, total_steps: Callable[[], int]) -> None:
        self._averaging = averaging
        self._total_steps = total_steps
        self._shows_mean = False

    @property
    def state_key(self) -> str:
        """Means of different kinds do not go on from one another."""
        return type(self._averaging).__name__

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = self._total_steps()
        self._state = TrainState(pl_module, trainer.optimizers[0], total, max(1, total // (trainer.max_epochs or 1)))
        self._state.step = trainer.global_step
        self._averaging.on_train_begin(self._state)
        self._show_weights()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step > self._state.step:  # not after a round that ends no step
            self._state.step = trainer.global_step
            self._averaging.on_step(self._state)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._averaging.before_evaluate(self._state)
        self._shows_mean = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show_weights()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._averaging.on_train_end(self._state)

    def _show_weights(self) -> None:
        if self._shows_mean:
            self._averaging.after_evaluate(self._state)
            self._shows_mean = False

    def state_dict(self) -> dict[str, Any]:
        return {"averaging": self._averaging.state_dict(), "shows_mean": self._shows_mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._averaging.load_state_dict(state_dict["averaging"])
        self._shows_mean = state_dict["shows_mean"]
