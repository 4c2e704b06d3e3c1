"""The training state, and several callbacks as one."""

import inspect
from typing import Any

import pytest

from callbacks import Callback, Callbacks
from tests.callbacks.states import state_of

HOOKS = [name for name in vars(Callback) if name.startswith(("on_", "after_"))]


class Recorder(Callback):
    """Writes down which hook was called on whom."""

    def __init__(self, name: str, calls: list[tuple[str, str, tuple[Any, ...]]]) -> None:
        self._name, self._calls = name, calls

    def __getattribute__(self, hook: str) -> Any:
        if hook in HOOKS:
            return lambda *arguments: self._calls.append((self._name, hook, arguments))
        return super().__getattribute__(hook)


def arguments_of(hook: str) -> tuple[Any, ...]:
    return (state_of(), len)[: len(inspect.signature(getattr(Callback, hook)).parameters) - 1]


def test_there_are_hooks() -> None:
    assert {"on_train_begin", "after_backward", "on_step", "on_log", "on_evaluate", "on_train_end"} <= set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_reaches_every_callback_in_order(hook: str) -> None:
    calls: list[tuple[str, str, tuple[Any, ...]]] = []
    arguments = arguments_of(hook)
    getattr(Callbacks([Recorder("first", calls), Recorder("second", calls)]), hook)(*arguments)
    assert calls == [("first", hook, arguments), ("second", hook, arguments)]


@pytest.mark.parametrize("hook", HOOKS)
def test_by_default_a_hook_does_nothing(hook: str) -> None:
    assert getattr(Callback(), hook)(*arguments_of(hook)) is None


def test_the_epoch_is_a_fraction() -> None:
    assert state_of(step=0).epoch == 0
    assert state_of(step=25).epoch == 2.5


def test_there_is_one_learning_rate_a_part() -> None:
    assert state_of().learning_rates == {"encoder": 1e-3, "head": 1e-2}
