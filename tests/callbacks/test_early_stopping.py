"""When a training ends that no longer improves."""

import pytest

from callbacks import EarlyStopping
from tests.callbacks.states import state_of


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
def test_it_stops_after_so_many_evaluations_in_vain(patience: int, scores: list[float], expected: int) -> None:
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
