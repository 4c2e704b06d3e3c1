"""Progress, early stopping, and warnings about a training that fails."""

import logging
import math
import sys
import time
from datetime import timedelta
from statistics import fmean
from typing import NoReturn

from torch import nn
from tqdm import tqdm

from callbacks.base import Callback, TrainState, comparable

logger = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Stops after ``patience`` evaluations in a row without a better score.

    Args:
        metric: the score of dev; for a loss, lower is better.
    """

    _REMEMBERED = ("_best", "_waited")

    def __init__(self, patience: int, metric: str = "f1") -> None:
        self._patience, self._metric = patience, metric
        self._best, self._waited = float("-inf"), 0

    def on_train_begin(self, state: TrainState) -> None:
        self._stop_if_due(state)

    def on_evaluate(self, state: TrainState) -> None:
        score = comparable(state.metrics, self._metric)
        self._waited = 0 if score > self._best else self._waited + 1
        self._best = max(self._best, score)
        self._stop_if_due(state)

    def _stop_if_due(self, state: TrainState) -> None:
        if self._waited >= self._patience:
            state.should_stop = True  # all ranks have the same scores
            logger.info("Stopping: no better %s in the last %d evaluations", self._metric, self._waited)


_LOGS_AVERAGED = 5  # a single hard batch is not divergence
_EMPTY_EVALUATIONS = 2  # a new head may find nothing at the first one


def nonfinite_loss(loss: float, model: nn.Module) -> str:
    """Explain a loss on dev that is NaN or infinite, and say what to do; empty for a finite loss."""
    if math.isfinite(loss):
        return ""
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    more = f" and {len(broken) - 1} more parameters" if len(broken) > 1 else ""
    where = f"NaN or infinity in {broken[0]}{more}" if broken else "the weights are finite"
    cause = "a learning rate that is too high, or float16 overflow" if broken else "float16 overflow in the emissions"
    advice = "lower the learning rates, use --bf16 instead of --fp16, and restart from earlier weights"
    return f"The loss on dev is {loss} ({where}). The likely cause is {cause}: {advice}"


class Watchdog(Callback):
    """Warns, once, if the loss diverges; and if the loss on dev is not finite, or no entity is found there.

    The loss diverges if its mean over five logs is twice the lowest such mean so far, and higher than it by a quarter
    of the first one (near zero, doubling means little).
    """

    _REMEMBERED = ("_recent", "_first", "_lowest", "_diverged", "_empty")

    def __init__(self) -> None:
        self._recent: list[float] = []
        self._first = self._lowest = float("inf")
        self._diverged = False
        self._empty = 0

    def on_log(self, state: TrainState) -> None:
        self._recent = [*self._recent, state.loss][-_LOGS_AVERAGED:]
        if len(self._recent) < _LOGS_AVERAGED:
            return
        mean = fmean(self._recent)
        if self._first == float("inf"):
            self._first = mean
        self._lowest = min(self._lowest, mean)
        if not self._diverged and mean > max(2 * self._lowest, self._lowest + self._first / 4):
            self._diverged = True
            rates = ", ".join(f"{name} {rate:.1e}" for name, rate in state.learning_rates.items())
            message = "The loss diverges: %.4f at step %d, lowest %.4f; lower the learning rates (now %s)"
            _warn(state, message, mean, state.step, self._lowest, rates)

    def on_evaluate(self, state: TrainState) -> None:
        if nonfinite := nonfinite_loss(state.metrics.get("loss", 0.0), state.model):
            _warn(state, "%s", nonfinite)
            return
        self._empty = 0 if state.metrics.get("f1", 1.0) else self._empty + 1
        if self._empty == _EMPTY_EVALUATIONS:
            advice = "train longer, raise the learning rates (1e-3 to 1e-2 for a new head), or check the labels"
            _warn(state, "No entity of dev is found after step %d: %s", state.step, advice)


def _warn(state: TrainState, message: str, *values: object) -> None:
    if state.is_main:  # all ranks have the same values
        logger.warning(message, *values)


_LINES_PER_RUN = 20


class Progress(Callback):
    """Shows loss, speed and remaining time; on rank 0 only."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._start, self._warm = (0.0, 0), (0.0, 0)  # time and step
        self._next_line = 0.0

    def on_train_begin(self, state: TrainState) -> None:
        self._start = self._warm = time.monotonic(), state.step
        if state.is_main and sys.stderr.isatty():
            self._bar = tqdm(total=state.total_steps, initial=state.step, desc="Training", unit=" steps")

    def on_step(self, state: TrainState) -> None:
        if self._warm == self._start:
            self._warm = time.monotonic(), state.step  # the first step compiles
        if self._bar is not None:
            self._bar.update()

    def on_log(self, state: TrainState) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {state.loss:.4f}, {state.words_per_second:,.0f} words/s")
        elif state.is_main and state.step >= self._next_line:
            self._next_line = state.step + state.total_steps / _LINES_PER_RUN
            since, step = self._warm if state.step > self._warm[1] else self._start
            per_step = (time.monotonic() - since) / max(1, state.step - step)
            left = timedelta(seconds=round(per_step * (state.total_steps - state.step)))
            place = f"step {state.step}/{state.total_steps}, epoch {state.epoch:.2f}"
            logger.info("%s, loss %.4f, %.0f words/s, %s left", place, state.loss, state.words_per_second, left)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
