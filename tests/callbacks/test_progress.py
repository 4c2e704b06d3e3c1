"""Progress: a bar on a terminal, lines in a log, nothing on other ranks."""

import io
import logging
import time

import pytest

from callbacks import Progress
from tests.callbacks.states import state_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(steps: int = 40, is_main: bool = True, progress: Progress | None = None) -> None:
    """A run whose loss is logged after each step."""
    progress = progress or Progress()
    state = state_of(is_main=is_main, total_steps=steps, loss=0.25, words_per_second=1234.5)
    progress.on_train_begin(state)
    for step in range(1, steps + 1):
        state.step = step
        progress.on_step(state)
        progress.on_log(state)
    progress.close()


def test_a_terminal_shows_a_bar_with_loss_and_speed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO):
        run()
    screen = terminal.getvalue()
    assert "Training" in screen
    assert "40/40" in screen
    assert "loss 0.2500" in screen
    assert "words/s" in screen
    assert not caplog.records


def test_without_a_terminal_there_are_a_few_lines_and_no_bar(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        run(steps=200)
    assert "\r" not in capsys.readouterr().err
    assert 10 <= len(caplog.messages) <= 21
    assert caplog.messages[0].startswith("step 1/200, epoch 0.10, loss 0.2500, ")
    assert caplog.messages[0].endswith(" left")


@pytest.mark.parametrize("has_terminal", [True, False])
def test_other_ranks_are_silent(
    has_terminal: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    screen = Terminal() if has_terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with caplog.at_level(logging.DEBUG):
        run(is_main=False)
    assert not screen.getvalue()
    assert not caplog.records


def test_after_an_interruption_only_the_steps_since_then_say_how_fast_it_goes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    progress, state, clock = Progress(), state_of(step=30, total_steps=40), 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    progress.on_train_begin(state)
    state.step, clock = 34, clock + 4 * 60
    with caplog.at_level(logging.INFO):
        progress.on_log(state)
    assert caplog.messages[0].endswith(" 0:06:00 left")


@pytest.mark.parametrize(("elapsed_hours", "left"), [(1, "3:00:00"), (10, "1 day, 6:00:00")])
def test_the_remaining_time_is_right_beyond_a_day_too(
    elapsed_hours: int, left: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    progress, state, clock = Progress(), state_of(total_steps=40), 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    progress.on_train_begin(state)
    state.step, clock = 10, clock + elapsed_hours * 3600
    with caplog.at_level(logging.INFO):
        progress.on_log(state)
    assert caplog.messages[0].endswith(f" {left} left")


def test_the_first_step_which_compiles_says_nothing_of_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    progress, state, clock = Progress(), state_of(total_steps=10), 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    progress.on_train_begin(state)
    with caplog.at_level(logging.INFO):
        for seconds in (300, 2, 2):
            state.step, clock = state.step + 1, clock + seconds
            progress.on_step(state)
            progress.on_log(state)
    assert [message.rpartition(", ")[2] for message in caplog.messages] == [
        "0:45:00 left",
        "0:00:16 left",
        "0:00:14 left",
    ]
