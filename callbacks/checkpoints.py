"""Folders written while training: checkpoints to go on from, and the best model on dev."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from callbacks.base import Callback, TrainState, comparable
from common.run_files import RunFolder


class Checkpoints(Callback):
    """Writes ``checkpoint-STEP`` folders, when asked to, and ``checkpoint-best``.

    Args:
        run: its folder.
        save_model: writes what is needed to use the model into a folder; called on all ranks.
        save_checkpoint: the same and all that is needed to go on.
        every: steps between checkpoints; 0 writes none.
        keep: how many checkpoints are kept, the latest; 0 keeps all.
        remove: removes a folder.
        metric: the score by which the best is chosen.
    """

    def __init__(
        self,
        run: RunFolder,
        save_model: Callable[[Path], None],
        save_checkpoint: Callable[[Path], None],
        every: int,
        keep: int,
        remove: Callable[[Path], None],
        metric: str = "f1",
    ) -> None:
        self._run = run
        self._save_model, self._save_checkpoint = save_model, save_checkpoint
        self._every = every
        self._keep = keep
        self._remove = remove
        self.metric = metric
        self._written: list[int] = []
        self.best_score = float("-inf")

    @property
    def has_best(self) -> bool:
        """Whether this run has scored a model and kept the best."""
        return self.best_score > float("-inf")

    @property
    def best_folder(self) -> Path:
        """Where the best model is, or will be."""
        return self._run.best_checkpoint

    def forget_best(self, state: TrainState) -> None:
        """The next model that is scored is the best so far."""
        self.best_score, state.best_metrics = float("-inf"), {}

    def is_due(self, state: TrainState) -> bool:
        """Whether a checkpoint is to be written after this step."""
        return bool(self._every) and (
            state.step % self._every == 0 or state.step == state.total_steps or state.should_stop
        )

    def save(self, state: TrainState) -> None:
        """Writes the checkpoint of this step, then removes those that are too many."""
        self._written = [*(step for step in self._written if step != state.step), state.step]
        self._save_checkpoint(self._folder(state.step))
        surplus = self._written[: -self._keep] if self._keep else []
        for step in surplus if state.is_main else []:
            self._remove(self._folder(step))
        self._written = self._written[len(surplus) :]

    def on_evaluate(self, state: TrainState) -> None:
        score = comparable(state.metrics, self.metric)
        if score > self.best_score:
            self.best_score, state.best_metrics = score, dict(state.metrics)
            self._save_model(self.best_folder)

    def state_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "best_score": self.best_score, "written": self._written}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        if saved["metric"] != self.metric:
            raise ValueError(f"--metric_for_best_model was {saved['metric']} and cannot become {self.metric}")
        self.best_score, self._written = saved["best_score"], list(saved["written"])

    def _folder(self, step: int) -> Path:
        return self._run.checkpoint(step)
