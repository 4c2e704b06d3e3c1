"""The training state, and several callbacks as one."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks import Backward, Callback, Callbacks, TrainState
from tests.callbacks.states import state_of

HOOKS = [name for name in vars(Callback) if name.startswith(("on_", "before_", "after_"))]


class Recorder(Callback):
    """Records which hook was called on which callback."""

    def __init__(self, name: str, calls: list[tuple[str, str, tuple[Any, ...]]]) -> None:
        self._name, self._calls = name, calls

    def __getattribute__(self, hook: str) -> Any:
        if hook in HOOKS:
            return lambda *arguments: self._calls.append((self._name, hook, arguments))
        return super().__getattribute__(hook)


def test_there_are_hooks() -> None:
    assert {"on_train_begin", "on_step", "on_log", "before_evaluate", "on_evaluate", "on_train_end"} <= set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_reaches_every_callback_in_order(hook: str) -> None:
    calls: list[tuple[str, str, tuple[Any, ...]]] = []
    state = state_of()
    Callbacks([Recorder("first", calls), Recorder("second", calls)]).call(hook, state)
    assert calls == [("first", hook, (state,)), ("second", hook, (state,))]


@pytest.mark.parametrize("hook", HOOKS)
def test_by_default_a_hook_does_nothing(hook: str) -> None:
    assert getattr(Callback(), hook)(state_of()) is None


class Twice(Callback):
    """Runs every batch twice, and counts the passes."""

    def __init__(self) -> None:
        self.runs = 0

    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        self.runs += 1
        return backward(last=False) + backward()

    def state_dict(self) -> dict[str, Any]:
        return {"runs": self.runs}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.runs = saved["runs"]


class ThreeTimes(Twice):
    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        return backward(last=False) + super().around_backward(state, backward)


def test_backward_passes_are_nested_and_only_the_very_last_is_the_last() -> None:
    lasts: list[bool] = []

    def backward(last: bool = True) -> Tensor:
        lasts.append(last)
        return torch.tensor(1.0)

    loss = Callbacks([Twice(), Callback(), ThreeTimes()]).around_backward(state_of(), backward)
    assert loss.item() == 6
    assert lasts == [False] * 5 + [True]


def test_what_callbacks_remember_comes_back_to_them() -> None:
    before, after = [Twice(), Callback(), ThreeTimes()], [Twice(), Callback(), ThreeTimes()]
    before[0].load_state_dict({"runs": 2})
    before[2].load_state_dict({"runs": 3})
    saved = Callbacks(before).state_dict()
    assert saved == {"Twice": {"runs": 2}, "ThreeTimes": {"runs": 3}}
    Callbacks(after).load_state_dict(saved)
    assert [one.state_dict() for one in after] == [{"runs": 2}, {}, {"runs": 3}]


def test_a_callback_that_is_new_since_the_checkpoint_starts_anew() -> None:
    callback = Twice()
    Callbacks([callback]).load_state_dict({})
    assert callback.runs == 0


def test_the_state_remembers_where_it_stands() -> None:
    state = state_of()
    state.load_state_dict(state_of(step=7, skipped_steps=2, evaluated_step=5).state_dict())
    assert (state.step, state.skipped_steps, state.evaluated_step) == (7, 2, 5)
    state.load_state_dict(state_of(best_metrics={"f1": 0.5}).state_dict())
    assert state.best_metrics == {"f1": 0.5}


def test_whether_to_stop_is_decided_anew() -> None:
    state = state_of()
    state.load_state_dict(state_of(should_stop=True).state_dict())
    assert not state.should_stop


def test_the_epoch_is_a_fraction() -> None:
    assert state_of(step=0).epoch == 0
    assert state_of(step=25).epoch == 2.5


def test_there_is_one_learning_rate_a_part() -> None:
    assert state_of().learning_rates == {"encoder": 1e-3, "head": 1e-2}
