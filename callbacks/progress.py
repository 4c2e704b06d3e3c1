"""A bar on a terminal, a line now and then in a log file, nothing on other ranks."""

import logging
import sys
import time
from datetime import timedelta
from typing import NoReturn

from tqdm import tqdm

from callbacks.base import Callback, TrainState

logger = logging.getLogger(__name__)
_LINES_IN_A_LOG = 20


class Progress(Callback):
    """Shows loss, speed and remaining time."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._start, self._warm = (0.0, 0), (0.0, 0)  # when, and after which step
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
            self._next_line = state.step + state.total_steps / _LINES_IN_A_LOG
            since, step = self._warm if state.step > self._warm[1] else self._start
            a_step = (time.monotonic() - since) / max(1, state.step - step)
            left = timedelta(seconds=round(a_step * (state.total_steps - state.step)))
            place = f"step {state.step}/{state.total_steps}, epoch {state.epoch:.2f}"
            logger.info("%s, loss %.4f, %.0f words/s, %s left", place, state.loss, state.words_per_second, left)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
