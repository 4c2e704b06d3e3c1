"""Which folders are written, and when."""

from pathlib import Path

import pytest

from callbacks import Checkpoints
from common.run_files import RunFolder
from tests.callbacks.states import state_of


class Disk:
    """Records which folders were written, and which still exist."""

    def __init__(self, output_dir: Path, every: int = 0, keep: int = 0, metric: str = "f1") -> None:
        self.models: list[str] = []
        self.checkpoints: list[str] = []
        self.kept: list[str] = []
        self.callback = Checkpoints(
            RunFolder(output_dir), self._model, self._checkpoint, every, keep, self._remove, metric
        )

    def _model(self, folder: Path) -> None:
        self.models.append(folder.name)

    def _checkpoint(self, folder: Path) -> None:
        self.checkpoints.append(folder.name)
        self.kept.append(folder.name)

    def _remove(self, folder: Path) -> None:
        self.kept.remove(folder.name)

    def train(self, steps: int, is_main: bool = True) -> "Disk":
        for step in range(1, steps + 1):
            state = state_of(step=step, total_steps=steps, is_main=is_main)
            if self.callback.is_due(state):
                self.callback.save(state)
        return self


def evaluations_that_wrote(disk: Disk, scores: list[float], metric: str = "f1") -> list[int]:
    """The numbers of the evaluations after which the best model was saved."""
    wrote = []
    for number, score in enumerate(scores):
        before = len(disk.models)
        disk.callback.on_evaluate(state_of(metrics={"f1": 0.5, metric: score}))
        wrote += [number] * (len(disk.models) - before)
    assert set(disk.models) == {"checkpoint-best"}
    assert disk.callback.best_score == max(scores)
    return wrote


def test_a_checkpoint_is_written_every_so_many_steps_and_after_the_last(tmp_path: Path) -> None:
    disk = Disk(tmp_path, every=3).train(10)
    assert disk.checkpoints == ["checkpoint-3", "checkpoint-6", "checkpoint-9", "checkpoint-10"]
    assert disk.kept == disk.checkpoints


def test_zero_writes_no_checkpoint(tmp_path: Path) -> None:
    assert Disk(tmp_path).train(10).checkpoints == []


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    disk = Disk(tmp_path, every=3, keep=2).train(10)
    assert len(disk.checkpoints) == 4
    assert disk.kept == ["checkpoint-9", "checkpoint-10"]


def test_after_an_interruption_those_written_before_it_count(tmp_path: Path) -> None:
    before = Disk(tmp_path, every=3, keep=2).train(7)  # 3, 6, 7
    after = Disk(tmp_path, every=3, keep=2)
    after.callback.load_state_dict(before.callback.state_dict())
    after.kept = list(before.kept)
    after.callback.save(state_of(step=9))
    assert after.kept == ["checkpoint-7", "checkpoint-9"]


def test_a_checkpoint_is_removed_only_when_the_next_is_there(tmp_path: Path) -> None:
    disk = Disk(tmp_path, every=1, keep=1).train(1)

    def fail(folder: Path) -> None:
        raise OSError("disk full")

    failing = Checkpoints(RunFolder(tmp_path), disk._model, fail, 1, 1, disk._remove)
    failing.load_state_dict(disk.callback.state_dict())
    with pytest.raises(OSError, match="disk full"):
        failing.save(state_of(step=2))
    assert disk.kept == ["checkpoint-1"]


def test_other_ranks_remove_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path, every=3, keep=1).train(9, is_main=False)
    assert disk.kept == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]


def test_only_a_better_score_writes_the_best(tmp_path: Path) -> None:
    assert evaluations_that_wrote(Disk(tmp_path), [0.5, 0.4, 0.6, 0.6, 0.7]) == [0, 2, 4]


def test_a_score_of_zero_is_better_than_none(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    assert not disk.callback.has_best
    assert evaluations_that_wrote(disk, [0.0, 0.0]) == [0]
    assert disk.callback.has_best


def test_the_metric_can_be_chosen(tmp_path: Path) -> None:
    assert evaluations_that_wrote(Disk(tmp_path, metric="strict_f1"), [0.1, 0.2], metric="strict_f1") == [0, 1]


def test_the_smallest_loss_is_the_best(tmp_path: Path) -> None:
    disk, wrote = Disk(tmp_path, metric="loss"), []
    for loss in (0.5, 0.6, 0.4):
        state = state_of(metrics={"f1": loss, "loss": loss})
        disk.callback.on_evaluate(state)
        wrote.append(len(disk.models))
    assert wrote == [1, 1, 2]
    assert state.best_metrics == {"f1": 0.4, "loss": 0.4}


def test_an_interrupted_run_cannot_go_on_by_another_metric(tmp_path: Path) -> None:
    saved = Disk(tmp_path, metric="loss").callback.state_dict()
    with pytest.raises(ValueError, match="--metric_for_best_model was loss and cannot become f1"):
        Disk(tmp_path).callback.load_state_dict(saved)


def test_a_run_that_ends_early_writes_its_last_checkpoint(tmp_path: Path) -> None:
    callback = Disk(tmp_path, every=10).callback
    assert not callback.is_due(state_of(step=7))
    assert callback.is_due(state_of(step=7, should_stop=True))
    assert not Disk(tmp_path).callback.is_due(state_of(step=7, should_stop=True))


def test_a_missing_metric_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--metric_for_best_model recall"):
        Disk(tmp_path, metric="recall").callback.on_evaluate(state_of(metrics={"f1": 1.0}))


def test_the_best_score_survives_an_interruption(tmp_path: Path) -> None:
    before, after = Disk(tmp_path), Disk(tmp_path)
    before.callback.on_evaluate(state_of(metrics={"f1": 0.8}))
    after.callback.load_state_dict(before.callback.state_dict())
    after.callback.on_evaluate(state_of(metrics={"f1": 0.7}))
    assert after.models == []
