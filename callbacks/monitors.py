"""Warnings while there is still time to end a training that comes to nothing."""

import logging
import math
from collections import deque
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from torch import nn

from callbacks.base import Callback, TrainState, comparable

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


_LOGS_AVERAGED = 5  # a single hard batch is no divergence
_EVALUATIONS_IN_VAIN = 2  # the first of a new head may find nothing


def nonfinite_loss(loss: float, model: nn.Module) -> str:
    """What a loss of dev that is NaN or infinite comes from, and what to do; empty for any other."""
    if math.isfinite(loss):
        return ""
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    more = f" and {len(broken) - 1} more parameters" if len(broken) > 1 else ""
    where = f"NaN or infinity in {broken[0]}{more}" if broken else "the weights are finite"
    cause = "a learning rate that is too high, or float16 overflow" if broken else "float16 overflow in the emissions"
    advice = "lower the learning rates, use --bf16 instead of --fp16, and start from the weights before"
    return f"The loss of dev is {loss} ({where}). The likely cause is {cause}: {advice}"


class Watchdog(Callback):
    """Says that the loss diverges, once, and that dev has a loss that is not finite or that nothing is found in it.

    The loss diverges where its mean over the last five logs is twice the least such mean so far, and a quarter of the
    first one above it: near zero a loss may double and mean nothing.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_LOGS_AVERAGED)
        self._first = self._least = float("inf")
        self._diverged = False
        self._in_vain = 0

    def on_log(self, state: TrainState) -> None:
        self._recent.append(state.loss)
        if len(self._recent) < _LOGS_AVERAGED:
            return
        mean = fmean(self._recent)
        if self._first == float("inf"):
            self._first = mean
        self._least = min(self._least, mean)
        if not self._diverged and mean > max(2 * self._least, self._least + self._first / 4):
            self._diverged = True
            rates = ", ".join(f"{name} {rate:.1e}" for name, rate in state.learning_rates.items())
            message = "The loss diverges: about %.4f at step %d, after %.4f at best; lower the learning rates (now %s)"
            _warn(state, message, mean, state.step, self._least, rates)

    def on_evaluate(self, state: TrainState) -> None:
        if nonfinite := nonfinite_loss(state.metrics.get("loss", 0.0), state.model):
            _warn(state, "%s", nonfinite)
            return
        self._in_vain = 0 if state.metrics["f1"] else self._in_vain + 1
        if self._in_vain == _EVALUATIONS_IN_VAIN:
            advice = "train longer, raise the learning rates (a new head wants 1e-3 to 1e-2), or look at the labels"
            _warn(state, "Not one entity of dev is found after step %d: %s", state.step, advice)

    def state_dict(self) -> dict[str, Any]:
        means = {"first": self._first, "least": self._least}
        return {"recent": list(self._recent), **means, "diverged": self._diverged, "in_vain": self._in_vain}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._recent.extend(saved["recent"])
        self._first, self._least = saved["first"], saved["least"]
        self._diverged, self._in_vain = saved["diverged"], saved["in_vain"]


def _warn(state: TrainState, message: str, *values: object) -> None:
    if state.is_main:  # all ranks see the same
        logger.warning(message, *values)
