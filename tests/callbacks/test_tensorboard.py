"""What stands in the events."""

from pathlib import Path

import pytest

from callbacks import TensorBoard
from tests.callbacks.events import read_scalars
from tests.callbacks.states import state_of


def test_loss_rates_speed_and_scores_are_written_at_their_steps(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    state = state_of()
    board.on_train_begin(state)
    for step, loss in ((20, 0.5), (40, 0.25)):
        state.step, state.loss, state.words_per_second = step, loss, 100.0
        board.on_log(state)
    state.metrics = {"f1": 0.875, "strict_f1": 0.75}
    board.on_evaluate(state)
    board.close()
    scalars = read_scalars(tmp_path)
    assert scalars["train/loss"] == {20: 0.5, 40: 0.25}
    assert scalars["train/epoch"] == {20: 2.0, 40: 4.0}
    assert scalars["train/words_per_second"] == {20: 100.0, 40: 100.0}
    assert scalars["learning_rate/encoder"][20] == pytest.approx(1e-3)
    assert scalars["learning_rate/head"][40] == pytest.approx(1e-2)
    assert scalars["dev/f1"] == {40: 0.875}
    assert scalars["dev/strict_f1"] == {40: 0.75}


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "events")
    state = state_of(is_main=False)
    board.on_train_begin(state)
    board.on_log(state)
    board.on_evaluate(state)
    board.close()
    assert not (tmp_path / "events").exists()
