"""Ending a training that no longer improves."""

import logging
from collections.abc import Mapping
from typing import Any

from callbacks.base import Callback, TrainState
from callbacks.best import comparable

logger = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Stops after several evaluations in a row without a better score.

    Args:
        patience: so many are too many.
        metric: the score that counts.
    """

    def __init__(self, patience: int, metric: str = "f1") -> None:
        self._patience = patience
        self._metric = metric
        self._best = float("-inf")
        self._in_vain = 0

    def on_train_begin(self, state: TrainState) -> None:
        self._stop_if_in_vain(state)

    def on_evaluate(self, state: TrainState) -> None:
        score = comparable(state.metrics, self._metric)
        self._in_vain = 0 if score > self._best else self._in_vain + 1
        self._best = max(self._best, score)
        self._stop_if_in_vain(state)

    def _stop_if_in_vain(self, state: TrainState) -> None:
        if self._in_vain >= self._patience:
            state.should_stop = True  # on all ranks, since all have the same scores
            logger.info("Stopping: no better %s in the last %d evaluations", self._metric, self._in_vain)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "in_vain": self._in_vain}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._best, self._in_vain = saved["best"], saved["in_vain"]
