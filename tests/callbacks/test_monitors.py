"""Early stopping and the watchdog."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from callbacks import Callback, EarlyStopping, TrainState, Watchdog
from tests.callbacks.states import state_of
from tests.tools.runs import fit, replace
from tools.run import Run


def evaluations_until_it_stops(scores: list[float], stopping: EarlyStopping, metric: str = "f1") -> int:
    state = state_of()
    for number, score in enumerate(scores, start=1):
        state.metrics = {metric: score}
        stopping.on_evaluate(state)
        if state.should_stop:
            return number
    return 0


@pytest.mark.parametrize(
    ("patience", "scores", "expected"),
    [
        (1, [0.1, 0.2, 0.2, 0.3], 3),
        (2, [0.1, 0.0, 0.2, 0.1, 0.1, 0.9], 5),
        (2, [0.1, 0.0, 0.2, 0.1, 0.3], 0),
        (3, [0.0, 0.0, 0.0, 0.0], 4),
    ],
)
def test_it_stops_after_patience_evaluations_without_a_better_score(
    patience: int, scores: list[float], expected: int
) -> None:
    assert evaluations_until_it_stops(scores, EarlyStopping(patience)) == expected


def test_of_losses_the_smallest_counts() -> None:
    assert evaluations_until_it_stops([0.5, 0.4, 0.45, 0.41], EarlyStopping(2, "loss"), "loss") == 4


def test_it_remembers_its_count_over_an_interruption() -> None:
    before, after = EarlyStopping(3), EarlyStopping(3)
    assert evaluations_until_it_stops([0.5, 0.4, 0.4], before) == 0
    after.load_state_dict(before.state_dict())
    assert evaluations_until_it_stops([0.45], after) == 1


@pytest.mark.parametrize(("patience", "stops"), [(2, True), (3, False)])
def test_a_training_that_had_stopped_goes_on_with_more_patience(
    patience: int, stops: bool, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = EarlyStopping(2), EarlyStopping(patience)
    assert evaluations_until_it_stops([0.5, 0.4, 0.4], before) == 3
    after.load_state_dict(before.state_dict())
    caplog.clear()
    with caplog.at_level("INFO"):
        state = state_of()
        after.on_train_begin(state)
    assert state.should_stop == stops
    assert ("Stopping: no better f1 in the last 2 evaluations" in caplog.text) == stops


def warnings_about(losses: Sequence[float], caplog: pytest.LogCaptureFixture, watchdog: Watchdog) -> list[str]:
    caplog.clear()
    state = state_of()
    for loss in losses:
        state.step += 1
        state.loss = loss
        watchdog.on_log(state)
    return caplog.messages


def falling(logs: int, to: float, noise: float) -> list[float]:
    generator = np.random.default_rng(0)
    curve = to + (2 - to) * np.exp(-np.arange(logs) / 8)
    return list(curve * np.exp(generator.normal(0, noise, logs)))


@pytest.mark.parametrize("to", [0.3, 0.001])
def test_an_ordinary_training_is_left_alone(to: float, caplog: pytest.LogCaptureFixture) -> None:
    assert not warnings_about(falling(200, to, noise=0.4), caplog, Watchdog())


@pytest.mark.parametrize(
    "losses",
    [
        [*falling(40, 0.3, 0.1), *np.linspace(0.3, 1.2, 10)],  # back to where everything is predicted O
        [2.0, 2.1, 2.2, 2.5, 3.0, 4.0, 6.0, 9.0, 14.0, 20.0, 30.0],  # never fell
        [*falling(40, 0.001, 0.1), *[0.8] * 5],
    ],
)
def test_a_loss_far_above_the_best_is_said_once(losses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    (message,) = warnings_about([*losses, *[losses[-1]] * 50], caplog, Watchdog())
    assert "The loss diverges" in message
    assert "encoder 1.0e-03, head 1.0e-02" in message


def test_one_hard_batch_is_no_divergence(caplog: pytest.LogCaptureFixture) -> None:
    losses = falling(60, 0.2, 0.05)
    losses[50] *= 4
    assert not warnings_about(losses, caplog, Watchdog())


def test_an_interruption_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    losses = [*falling(40, 0.3, 0.1), 0.6, 0.9, 1.2, 1.2, 1.2, 1.2]
    for stop in range(1, len(losses)):
        first, second = Watchdog(), Watchdog()
        before = warnings_about(losses[:stop], caplog, first)[:]
        second.load_state_dict(first.state_dict())
        assert len(before) + len(warnings_about(losses[stop:], caplog, second)) == 1


def test_two_evaluations_without_a_find_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watchdog, state = Watchdog(), state_of()
    counts = []
    for f1 in (0.0, 0.0, 0.0, 0.1):
        state.metrics = {"f1": f1}
        watchdog.on_evaluate(state)
        counts.append(len(caplog.messages))
    assert counts == [0, 1, 1, 1]
    assert "No entity of dev is found" in caplog.messages[0]


@pytest.mark.parametrize(
    ("loss", "weight", "said"),
    [
        (
            math.nan,
            math.nan,
            "is nan (NaN or infinity in classifier.bias). The likely cause is a learning rate that is too high",
        ),
        (math.inf, -math.inf, "is inf (NaN or infinity in classifier.bias)"),
        (math.nan, 1.0, "is nan (the weights are finite). The likely cause is float16 overflow in the emissions"),
    ],
)
def test_a_loss_that_is_no_number_is_named_with_its_causes(
    loss: float, weight: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog, state = Watchdog(), state_of(metrics={"f1": 0.0, "loss": loss})
    with torch.no_grad():
        state.model.get_parameter("classifier.bias")[0] = weight
    for _ in range(3):
        watchdog.on_evaluate(state)
    assert len(caplog.messages) == 3
    assert said in caplog.messages[0]
    assert "use --bf16 instead of --fp16" in caplog.messages[0]


class Poison(Callback):
    """Breaks a weight before dev is scored."""

    def before_evaluate(self, state: TrainState) -> None:
        with torch.no_grad():
            state.model.get_parameter("classifier.weight")[0, 0] = math.nan


def test_broken_weights_show_in_a_real_training(crf_args: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit(replace(crf_args, max_steps=2, callback="tests.callbacks.test_monitors:Poison"))
    assert [message for message in caplog.messages if "(NaN or infinity in classifier.weight)" in message]


def test_other_ranks_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    watchdog, state = Watchdog(), state_of(is_main=False, metrics={"f1": 0.0})
    for loss in (1.0, 1.0, 1.0, 1.0, 1.0, 20.0):
        state.loss = loss
        watchdog.on_log(state)
        watchdog.on_evaluate(state)
    assert not caplog.messages


@pytest.mark.parametrize(("rate", "warnings"), [(1.0, 1), (2e-3, 0)])
def test_too_high_a_rate_shows_in_a_real_training(
    rate: float, warnings: int, crf_args: Run, caplog: pytest.LogCaptureFixture
) -> None:
    args = replace(crf_args, learning_rate=rate, crf_learning_rate=rate, max_grad_norm=0.0, log_loss_steps=1)
    with caplog.at_level(logging.WARNING):
        fit(replace(args, num_train_epochs=6.0, evaluate_during_training=False))
    assert len([message for message in caplog.messages if "diverges" in message]) == warnings
