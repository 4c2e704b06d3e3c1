"""What TensorBoard is given after the last step."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from analysis.documents import ScoredDocument
from analysis.pairs import all_pairs, type_confusion
from analysis.report.board import draw_on_board, step_of
from analysis.report.run_data import event_values
from common.entities import Entity
from tests.analysis.report.scored import LOC, PER, document, documents_of_each_kind
from tests.tools.runs import FinishedRun


def drawn(run: Path, documents: list[ScoredDocument], checkpoint: str = "") -> dict[str, tuple[int, object]]:
    draw_on_board(run, checkpoint, "dev", documents, type_confusion(all_pairs(documents)))
    return {value.tag: (step, value) for step, value in event_values(run / "tensorboard")}


def test_the_curve_counts_the_entities_that_are_sure_enough(tmp_path: Path) -> None:
    gold = [Entity(PER, 0, 0), Entity(LOC, 1, 1), Entity(LOC, 2, 2)]
    sure = document("a", "x y z", gold, gold[:1], confidence=0.9)
    doubtful = document("b", "x y z", [], [Entity(PER, 1, 1)], confidence=0.3)
    _, value = drawn(tmp_path, [sure, doubtful])["dev/entities"]
    numbers = np.array(value.tensor.float_val).reshape(6, 127)  # type: ignore[attr-defined]
    right, wrong, _, left_out, precision, recall = numbers
    assert (right[0], wrong[0], left_out[0]) == (1, 1, 2)
    assert (precision[0], recall[0]) == pytest.approx((1 / 2, 1 / 3))
    middle = 63  # confidence 0.5
    assert (right[middle], wrong[middle], left_out[middle]) == (1, 0, 2)
    assert (right[-1], wrong[-1], left_out[-1]) == (0, 0, 3)
    assert (precision[-1], recall[-1]) == (1, 0)


def test_pictures_are_not_empty(tmp_path: Path) -> None:
    values = drawn(tmp_path, documents_of_each_kind(4))
    for name in ("dev/confusion", "dev/calibration"):
        picture = values[name][1].image  # type: ignore[attr-defined]
        assert picture.encoded_image_string.startswith(b"\x89PNG")
        assert picture.width == 495
        assert len(zlib.compress(picture.encoded_image_string)) > 4000


def test_a_split_without_entities_has_a_curve_and_no_pictures(tmp_path: Path) -> None:
    assert set(drawn(tmp_path, [document("a", "x y", [], [])])) == {"dev/entities"}


def test_a_checkpoint_stands_at_its_step_and_the_final_model_at_the_last(crf_run: FinishedRun, tmp_path: Path) -> None:
    documents = documents_of_each_kind(1)
    assert drawn(tmp_path, documents, "checkpoint-16")["dev/entities"][0] == 16
    assert step_of(crf_run.folder, "") == step_of(crf_run.folder, "checkpoint-best") > 16
    assert step_of(tmp_path, "") == 0


def test_a_run_draws_both_splits_and_its_checkpoints(crf_run: FinishedRun) -> None:
    values = list(event_values(crf_run.folder / "tensorboard"))
    for split in ("dev", "test"):
        steps = {step for step, value in values if value.tag == f"{split}/entities"}
        assert steps >= {16, step_of(crf_run.folder, "")}
