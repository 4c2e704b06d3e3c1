"""Trainings that are interrupted at a chosen place, and go on."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from torch import Tensor

from tests.tools.runs import fit, replace
from tools.interruption import Interrupted
from tools.run import Run
from tools.train import Training


@contextmanager
def signal_in_step(step: int, number: int = signal.SIGTERM, in_round: int = 1) -> Iterator[None]:
    """This process gets a signal in an accumulation round of a step, before the gradients of that round are there."""
    original: Callable[..., Tensor] = Training._backward
    seen = 0

    def backward(training: Training, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal seen
        seen = seen + 1 if training.state.step == step - 1 else 0
        if seen == in_round:
            os.kill(os.getpid(), number)
        return original(training, *args, **kwargs)

    with patch.object(Training, "_backward", backward):
        yield


def fit_with_interruption(args: Run, step: int, **changes: Any) -> tuple[int, float, dict[str, Tensor]]:
    """Trains until a signal in the given step, then goes on as a second run would; with changed arguments."""
    with signal_in_step(step), pytest.raises(Interrupted):
        fit(args)
    return fit(replace(args, resume_from_checkpoint="auto", **changes))
