"""What a run under Lightning leaves on disk beside Lightning's own checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

LAST_CHECKPOINT = "last.ckpt"


class LastCheckpoint(Callback):
    """Keeps one checkpoint to go on from: of the last epoch, or of a step within it.

    Args:
        output_dir: folder of the run.
        every: steps between checkpoints within an epoch; 0 writes none there.
    """

    def __init__(self, output_dir: Path, every: int = 0) -> None:
        self._path = output_dir / LAST_CHECKPOINT
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
