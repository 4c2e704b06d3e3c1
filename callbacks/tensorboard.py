"""Losses, learning rates and scores as TensorBoard events."""

from pathlib import Path

from tensorboardX import SummaryWriter

from callbacks.base import Callback, TrainState


class TensorBoard(Callback):
    """Writes events into a folder: ``tensorboard --logdir outputs`` shows all runs side by side."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._writer: SummaryWriter | None = None

    def on_train_begin(self, state: TrainState) -> None:
        if state.is_main:
            purge = state.step + 1 if state.step else None  # what an interrupted run drew beyond its checkpoint
            suffix = f".{state.step}"
            self._writer = SummaryWriter(str(self._log_dir), purge_step=purge, filename_suffix=suffix)

    def on_log(self, state: TrainState) -> None:
        scalars = {
            "train/loss": state.loss,
            "train/words_per_second": state.words_per_second,
            "train/epoch": state.epoch,
        }
        scalars |= {f"learning_rate/{name}": rate for name, rate in state.learning_rates.items()}
        self._write(scalars, state.step)

    def on_evaluate(self, state: TrainState) -> None:
        self._write({f"dev/{name}": value for name, value in state.metrics.items()}, state.step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, scalars: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)
