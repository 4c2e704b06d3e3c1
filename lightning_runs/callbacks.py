"""Means of the weights under Lightning."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from callbacks.averaging import WeightAveraging
from callbacks.base import TrainState
from common.run_files import RunFolder
from tools.checkpoint import refuse_kept_options


class LastCheckpoint(Callback):
    """Keeps one checkpoint to go on from: of the last epoch, or of a step within it.

    Args:
        run: its folder.
        every: steps between checkpoints within an epoch; 0 writes none there.
    """

    def __init__(self, run: RunFolder, every: int = 0) -> None:
        self._path = run.last_lightning_checkpoint
        self._every = every
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        ends_step = trainer.global_step > self._step  # a checkpoint holds no gradients of a step half-way
        self._step = trainer.global_step
        # the last batch's checkpoint follows when its epoch is scored; one before would skip the scoring
        if ends_step and self._every and self._step % self._every == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self._path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self._path)


class BestFolder(Callback):
    """Writes the model as a Hugging Face folder whenever Lightning has kept a checkpoint of it as the best.

    Args:
        save: writes the folder; called by one process.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self._written = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._written = _best_path(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        best = _best_path(trainer)
        if best != self._written:
            self._written = best
            if trainer.is_global_zero:
                self._save()


def _best_path(trainer: Trainer) -> str:
    checkpoint = trainer.checkpoint_callback
    return checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""


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


def check_model(checkpoint: Mapping[str, Any], module: nn.Module, traits: Mapping[str, str], source: str) -> None:
    """Raises a ValueError where a checkpoint holds another model than the flags have built.

    Args:
        module: what the checkpoint's weights are meant for.
        traits: the flags that say what kind of model it is, as ``traits`` of the checkpoint has them.
        source: names the checkpoint.
    """
    before = checkpoint.get("traits", {})
    other = next((name for name in traits if before.get(name, traits[name]) != traits[name]), None)
    if other:
        advice = "say the same, or name another --output_dir"
        raise ValueError(f"{source} was trained with --{other} {before[other]}: {advice}")
    there, wanted = (
        {name: tuple(weight.shape) for name, weight in state.items()}
        for state in (checkpoint["state_dict"], module.state_dict())
    )
    misfits = sorted(name for name in there | wanted if there.get(name) != wanted.get(name))
    if misfits:
        shapes = f"{misfits[0]} is {there.get(misfits[0])} there and {wanted.get(misfits[0])} here"
        raise ValueError(f"{source} is of another encoder ({shapes}): name it in --model_name_or_path")


def check_course(checkpoint: Mapping[str, Any], order: str, flags: Mapping[str, Any], source: str) -> None:
    """Raises a ValueError where a training cannot go on from a checkpoint as the flags have it.

    Args:
        order: digest of the order of the data.
    """
    if checkpoint["order"] != order:
        raise ValueError(
            "the training data comes in another order than before: keep the data, --seed, --max_seq_length and the "
            "sequences of a step (--train_batch_size x processes x --accumulate_grad_batches)"
        )
    refuse_kept_options(flags, checkpoint["hyper_parameters"], source)
