"""What is added up over steps."""

import time

import pytest
import torch

from tests.callbacks.states import state_of
from tools.meter import Meter


def counted(*losses: float) -> Meter:
    """A step for each loss, of 10 words, and of 12 tokens in 2 rows of 8."""
    meter = Meter(torch.device("cpu"), peak_flops=1e9)
    for loss in losses:
        meter.add_loss(torch.tensor(loss))
        meter.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
    return meter


def test_means_are_those_since_the_last_report() -> None:
    state, meter = state_of(), counted(2.0, 4.0)
    meter.report(state)
    assert state.loss == 3
    assert state.padding_share == 0.25
    assert state.tokens_per_second == pytest.approx(1.2 * state.words_per_second)
    assert state.utilisation == pytest.approx(state.words_per_second * 1e5 / 1e9)
    meter.add_loss(torch.tensor(7.0))
    meter.add_step(words=10, tokens=8, computed_tokens=8, flops=1e6)
    meter.report(state)
    assert (state.loss, state.padding_share) == (7, 0)
    assert (meter.total.loss, meter.total.steps, meter.total.words) == (13, 3, 30)


def test_a_step_that_was_left_out_does_not_spoil_the_mean() -> None:
    state = state_of()
    counted(2.0, float("nan"), float("inf")).report(state)
    assert state.loss == pytest.approx(2 / 3)


def test_a_pause_does_not_count() -> None:
    state, meter = state_of(), counted(1.0)
    with meter.paused():
        time.sleep(0.2)
    meter.report(state)
    assert state.words_per_second > 10 / 0.2


def test_the_first_step_of_a_process_does_not_count_as_speed() -> None:
    state, meter = state_of(), Meter(torch.device("cpu"), peak_flops=1e9)
    for pause in (0.3, 0.01):
        time.sleep(pause)
        meter.add_loss(torch.tensor(1.0))
        meter.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
    meter.report(state)
    assert 10 / 0.2 < state.words_per_second < 10 / 0.01
    assert state.tokens_per_second == pytest.approx(1.2 * state.words_per_second)
    assert meter.words_per_second == state.words_per_second
    assert meter.total.seconds > 0.3
    assert (meter.total.words, state.padding_share) == (20, 0.25)


def test_a_first_step_alone_is_all_that_can_be_said() -> None:
    state, meter = state_of(), Meter(torch.device("cpu"), peak_flops=1e9)
    time.sleep(0.1)
    meter.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
    meter.report(state)
    assert 0 < state.words_per_second < 10 / 0.1


def test_each_process_of_a_resumed_run_has_a_first_step() -> None:
    meter, state = counted(2.0, 4.0), state_of()
    for _ in range(2):
        resumed = Meter(torch.device("cpu"), peak_flops=1e9)
        resumed.load_state_dict(meter.state_dict())
        time.sleep(0.2)
        for _ in range(2):
            resumed.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
        meter = resumed
    meter.report(state)
    assert state.words_per_second > 10 / 0.2
    assert meter.total.seconds > 0.4


@pytest.mark.parametrize("reported", [True, False])
def test_it_goes_on_with_what_another_one_counted(reported: bool) -> None:
    before, after, state = counted(2.0, 4.0), Meter(torch.device("cpu"), peak_flops=1e9), state_of()
    if reported:
        before.report(state)
    after.load_state_dict(before.state_dict())
    after.add_loss(torch.tensor(6.0))
    after.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
    after.report(state)
    assert state.loss == (6 if reported else 4)
    assert (after.total.loss, after.total.steps, after.total.computed_tokens) == (12, 3, 48)
