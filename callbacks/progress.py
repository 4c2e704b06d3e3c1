"""Progress of the training: a bar on a terminal, otherwise about twenty lines in the log."""

import logging
import sys
import time
from datetime import timedelta
from typing import NoReturn

from tqdm import tqdm

from callbacks.base import Callback, TrainState

logger = logging.getLogger(__name__)
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
