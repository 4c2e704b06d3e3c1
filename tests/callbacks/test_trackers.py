"""TensorBoard, MLflow and Weights & Biases."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis.report.run_data import read_scalars
from callbacks import MLflow, ScoredText, TensorBoard, WandB
from callbacks.trackers import transition_picture, transition_scores
from models.crf import CRF
from tests.callbacks.events import read_images, read_texts
from tests.callbacks.states import TinyModel, state_of


def test_loss_rates_speed_and_scores_are_written_at_their_steps(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, {})
    state = state_of()
    board.on_train_begin(state)
    for step, loss in ((20, 0.5), (40, 0.25)):
        state.step, state.loss, state.words_per_second = step, loss, 100.0
        state.gradient_norm, state.padding_share, state.utilisation = 2.0, 0.125, 0.5
        state.memory_gib, state.skipped_steps = 1.5, 3
        board.on_log(state)
    state.metrics = {"f1": 0.875, "strict_f1": 0.75}
    state.type_metrics = {"PER": {"precision": 0.5, "f1": 0.25}, "": {"f1": 0.75}}
    board.on_evaluate(state)
    board.close()
    scalars = read_scalars(tmp_path)
    assert scalars["train/loss"] == {20: 0.5, 40: 0.25}
    assert scalars["train/epoch"] == {20: 2.0, 40: 4.0}
    assert scalars["train/words_per_second"] == {20: 100.0, 40: 100.0}
    assert {name: scalars[f"train/{name}"][40] for name in ("gradient_norm", "padding_share", "utilisation")} == {
        "gradient_norm": 2.0,
        "padding_share": 0.125,
        "utilisation": 0.5,
    }
    assert (scalars["train/memory_gib"][40], scalars["train/skipped_steps"][40]) == (1.5, 3)
    assert scalars["learning_rate/encoder"][20] == pytest.approx(1e-3)
    assert scalars["learning_rate/head"][40] == pytest.approx(1e-2)
    assert scalars["dev/f1"] == {40: 0.875}
    assert scalars["dev/strict_f1"] == {40: 0.75}
    assert scalars["dev_types/PER/precision"] == {40: 0.5}
    assert scalars["dev_types/PER/f1"] == {40: 0.25}
    assert scalars["dev_types/f1"] == {40: 0.75}  # of entities without a type


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "events", {})
    state = state_of(is_main=False, metrics={"f1": 0.5}, best_metrics={"f1": 0.5})
    board.on_train_begin(state)
    board.on_log(state)
    board.on_evaluate(state)
    board.on_train_end(state)
    board.close()
    assert not (tmp_path / "events").exists()


def test_steps_that_were_taken_again_are_shown_once(tmp_path: Path) -> None:
    """The first run dies after step 30; the second resumes from the checkpoint of step 20."""
    for start, end, loss in ((0, 30, 1.0), (20, 40, 2.0)):
        board, state = TensorBoard(tmp_path, {}), state_of(step=start)
        board.on_train_begin(state)
        for step in range(start + 10, end + 1, 10):
            state.step, state.loss = step, loss
            board.on_log(state)
        board.close()
    seen = EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in seen] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0)]


def test_examples_are_a_table(tmp_path: Path) -> None:
    board, state = TensorBoard(tmp_path, {}), state_of(step=5)
    state.examples = [ScoredText("a|b\nwent", ["PER: a|b"], []), ScoredText("left", [], ["LOC: left", "PER: left"])]
    board.on_train_begin(state)
    board.on_evaluate(state)
    board.close()
    assert read_texts(tmp_path)["dev/examples"][5].splitlines() == [
        "| text | gold | predicted |",
        "|---|---|---|",
        "| a\\|b went | PER: a\\|b |  |",
        "| left |  | LOC: left; PER: left |",
    ]


def test_the_transitions_are_a_picture_at_the_end(tmp_path: Path) -> None:
    model = TinyModel()
    model.crf = CRF(2)
    board, state = TensorBoard(tmp_path, {}), state_of(model, step=40, tag_names=["O", "B-PER"])
    board.on_train_begin(state)
    board.on_train_end(state)
    board.close()
    assert read_images(tmp_path)["crf/transitions"][40].startswith(b"\x89PNG")


def test_hyper_parameters_stand_beside_the_scores_of_the_best_model(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "run", {"learning_rate": 0.5, "optim": "adafactor", "do_adv": True})
    state = state_of(step=40, metrics={"f1": 0.25}, best_metrics={"f1": 0.75})
    board.on_train_begin(state)
    board.on_train_end(state)
    board.close()
    assert read_scalars(tmp_path / "run")["final/f1"] == {40: 0.75}
    assert len(list((tmp_path / "run").iterdir())) == 1
    found = EventAccumulator(str(tmp_path / "run")).Reload().SummaryMetadata("_hparams_/session_start_info")
    assert b"adafactor" in found.plugin_data.content


def test_a_model_without_a_crf_has_no_picture(tmp_path: Path) -> None:
    board, state = TensorBoard(tmp_path, {}), state_of()
    board.on_train_begin(state)
    board.on_train_end(state)
    board.close()
    assert read_images(tmp_path) == {}


@pytest.mark.parametrize(("package", "tracker"), [("mlflow", MLflow), ("wandb", WandB)])
def test_without_the_package_the_flag_is_refused(
    package: str, tracker: type[MLflow] | type[WandB], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"--report_to {package}: the package cannot be imported .*pip install {package}"
    with pytest.raises(ValueError, match=said):
        tracker("run", {})


def test_mlflow_of_a_resumed_training_goes_on_in_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr("sys.argv", ["pytest"])
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    first, state = MLflow("cner", {"learning_rate": 0.5}), state_of()
    first.on_train_begin(state)
    state.step, state.loss, state.metrics = 10, 0.25, {"f1": 0.5}
    first.on_log(state)
    first.on_evaluate(state)
    first.close()
    second = MLflow("cner", {"learning_rate": 0.5})
    second.load_state_dict(first.state_dict())
    second.on_train_begin(state)
    state.step, state.loss, state.best_metrics = 20, 0.125, {"f1": 0.75}
    second.on_log(state)
    second.on_train_end(state)
    second.close()
    (run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert run.info.run_name == "cner"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"learning_rate": "0.5"}
    losses = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in losses] == [(10, 0.25), (20, 0.125)]
    assert (run.data.metrics["dev/f1"], run.data.metrics["final/f1"]) == (0.5, 0.75)


def test_wandb_is_kept_offline_and_goes_on_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run, state = WandB("cner", {"learning_rate": 0.5}), state_of(metrics={"f1": 0.5})
    run.on_train_begin(state)
    state.step = 10
    run.on_log(state)
    run.on_evaluate(state)
    run.close()
    again = WandB("cner", {"learning_rate": 0.5})
    again.load_state_dict(run.state_dict())
    again.on_train_begin(state)
    again.close()
    assert again.state_dict() == run.state_dict()
    files = [path for path in tmp_path.rglob("*.wandb") if path.stat().st_size]
    assert {path.stem for path in files} == {f"run-{run.state_dict()['run_id']}"}


def scores_of(layer: CRF) -> np.ndarray:
    return transition_scores(layer.transitions, layer.start_transitions, layer.end_transitions, layer.legal)


def crf(legal: torch.Tensor | None = None) -> CRF:
    """A CRF whose scores name their place: 12 from tag 1 to tag 2."""
    layer = CRF(3, legal=legal)
    places = torch.arange(3.0)
    layer.transitions.data = 10 * places[:, None] + places
    layer.start_transitions.data, layer.end_transitions.data = 30 + places, 10 * places + 3
    return layer


def test_rows_are_tags_and_the_start_columns_tags_and_the_end() -> None:
    scores = scores_of(crf())
    expected = 10.0 * np.arange(4)[:, None] + np.arange(4)
    expected[3, 3] = np.nan  # no text is empty
    assert np.array_equal(scores, expected, equal_nan=True)


def test_what_is_illegal_has_no_score() -> None:
    legal = torch.ones(5, 5, dtype=torch.bool)
    legal[1, 2] = False
    legal[3, 0] = False  # from the start
    legal[2, 4] = False  # to the end
    scores = scores_of(crf(legal))
    missing = {(1, 2), (3, 0), (2, 3), (3, 3)}
    assert {(int(row), int(column)) for row, column in np.argwhere(np.isnan(scores))} == missing


def test_the_picture_shows_colours_and_grows_with_the_tags() -> None:
    small = transition_picture(crf(), ["O", "B-PER", "I-PER"])
    large = transition_picture(CRF(20), [f"B-{tag}" for tag in range(20)])
    assert small.dtype == np.uint8
    assert small.shape[2] == 3
    assert len(np.unique(small.reshape(-1, 3), axis=0)) > 50
    assert large.shape[0] > 2 * small.shape[0]
