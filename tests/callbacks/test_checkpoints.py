"""Which folders are written, and when."""

from pathlib import Path

import pytest

from callbacks import BEST_FOLDER, Checkpoints
from tests.callbacks.states import state_of


def written_steps(tmp_path: Path, every: int, steps: int, is_main: bool = True) -> list[str]:
    written: list[Path] = []
    checkpoints = Checkpoints(tmp_path, written.append, every)
    for step in range(1, steps + 1):
        checkpoints.on_step(state_of(step=step, is_main=is_main))
    assert all(folder.parent == tmp_path for folder in written)
    return [folder.name for folder in written]


def written_scores(tmp_path: Path, scores: list[float], metric: str = "f1", is_main: bool = True) -> list[int]:
    """The numbers of the evaluations after which the best model was written."""
    written: list[Path] = []
    checkpoints = Checkpoints(tmp_path, written.append, every=0, metric=metric)
    evaluations = []
    for number, score in enumerate(scores):
        before = len(written)
        checkpoints.on_evaluate(state_of(metrics={"f1": 0.5, metric: score}, is_main=is_main))
        evaluations += [number] * (len(written) - before)
    assert all(folder == tmp_path / BEST_FOLDER for folder in written)
    assert checkpoints.best_score == max(scores)
    return evaluations


def test_a_checkpoint_is_written_every_so_many_steps(tmp_path: Path) -> None:
    assert written_steps(tmp_path, every=3, steps=10) == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]


def test_zero_writes_no_checkpoint(tmp_path: Path) -> None:
    assert written_steps(tmp_path, every=0, steps=10) == []


def test_only_a_better_score_writes_the_best(tmp_path: Path) -> None:
    assert written_scores(tmp_path, [0.5, 0.4, 0.6, 0.6, 0.7]) == [0, 2, 4]


def test_a_score_of_zero_is_better_than_none(tmp_path: Path) -> None:
    assert written_scores(tmp_path, [0.0, 0.0]) == [0]


def test_the_metric_can_be_chosen(tmp_path: Path) -> None:
    assert written_scores(tmp_path, [0.1, 0.2], metric="strict_f1") == [0, 1]


def test_a_missing_metric_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="recall"):
        Checkpoints(tmp_path, len, every=0, metric="recall").on_evaluate(state_of(metrics={"f1": 1.0}))  # type: ignore[arg-type]


def test_other_ranks_write_nothing_but_know_the_best_score(tmp_path: Path) -> None:
    assert written_steps(tmp_path, every=1, steps=3, is_main=False) == []
    assert written_scores(tmp_path, [0.1, 0.2], is_main=False) == []
