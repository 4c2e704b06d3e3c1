"""Trainings that are interrupted at a chosen place, and go on."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from torch import Tensor

from callbacks import Backward, Callbacks, TrainState
from tests.tools.runs import fit, replace
from tools.distributed import Interrupted
from tools.run import Run


@contextmanager
def signal_in_step(step: int, number: int = signal.SIGTERM, in_round: int = 1) -> Iterator[None]:
    """This process gets a signal in an accumulation round of a step, before the gradients of that round are there."""
    original = Callbacks.around_backward
    seen = 0

    def around_backward(callbacks: Callbacks, state: TrainState, backward: Backward) -> Tensor:
        nonlocal seen
        seen = seen + 1 if state.step == step - 1 else 0
        if seen == in_round:
            os.kill(os.getpid(), number)
        return original(callbacks, state, backward)

    with patch.object(Callbacks, "around_backward", around_backward):
        yield


def fit_with_interruption(args: Run, step: int, **changes: Any) -> tuple[int, float, dict[str, Tensor]]:
    """Trains until a signal in the given step, then goes on as a second run would; with changed arguments."""
    with signal_in_step(step), pytest.raises(Interrupted):
        fit(args)
    return fit(replace(args, resume_from_checkpoint="auto", **changes))
