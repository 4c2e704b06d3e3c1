"""Folders written during training: checkpoints to resume from, and the best model on dev."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from callbacks.base import Callback, TrainState, comparable
from common.run_files import RunFolder


class Checkpoints(Callback):
    """Writes ``checkpoint-STEP`` and ``checkpoint-best``.

    Args:
        run: the run folder.
        save_model: saves the model into a folder; called on all ranks.
        save_checkpoint: saves the model and all that is needed to resume; called on all ranks.
        every: steps between checkpoints; 0 for none, -1 for one each epoch.
        keep: how many of the latest checkpoints to keep; 0 for all.
        remove: removes a folder.
        metric: the score on dev that the best model is selected by.
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
        self._run, self._remove, self.metric = run, remove, metric
        self._save_model, self._save_checkpoint = save_model, save_checkpoint
        self._every, self._keep = every, keep
        self._written: list[int] = []
        self.best_score = float("-inf")

    @property
    def has_best(self) -> bool:
        """Whether this run has saved a best model."""
        return self.best_score > float("-inf")

    @property
    def best_folder(self) -> Path:
        """The folder of the best model."""
        return self._run.best_checkpoint

    def is_due(self, state: TrainState) -> bool:
        """Whether to save a checkpoint after this step."""
        return state.is_due(self._every)

    def save(self, state: TrainState) -> None:
        """Save the checkpoint of this step, then remove the oldest ones."""
        self._written = [*(step for step in self._written if step != state.step), state.step]
        self._save_checkpoint(self._run.checkpoint(state.step))
        surplus = self._written[: -self._keep] if self._keep else []
        for step in surplus if state.is_main else []:
            self._remove(self._run.checkpoint(step))
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
