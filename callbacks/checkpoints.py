"""Model folders written while training: every so many steps, and the best on dev."""

from collections.abc import Callable
from pathlib import Path

from callbacks.base import Callback, TrainState

BEST_FOLDER = "checkpoint-best"


class Checkpoints(Callback):
    """Writes ``checkpoint-STEP`` folders and ``checkpoint-best``.

    Args:
        output_dir: folder of the run.
        save_folder: writes model, tokenizer and arguments into a folder.
        every: steps between checkpoints; 0 writes none but the best.
        metric: the score by which the best is chosen, larger is better.
    """

    def __init__(self, output_dir: Path, save_folder: Callable[[Path], None], every: int, metric: str = "f1") -> None:
        self._output_dir = output_dir
        self._save_folder = save_folder
        self._every = every
        self._metric = metric
        self.best_score = float("-inf")

    @property
    def has_best(self) -> bool:
        """Whether this run has scored a model and kept the best."""
        return self.best_score > float("-inf")

    def on_step(self, state: TrainState) -> None:
        if state.is_main and self._every and state.step % self._every == 0:
            self._save_folder(self._output_dir / f"checkpoint-{state.step}")

    def on_evaluate(self, state: TrainState) -> None:
        score = state.metrics[self._metric]
        if score > self.best_score:
            self.best_score = score
            if state.is_main:
                self._save_folder(self._output_dir / BEST_FOLDER)
