"""A run in MLflow's own store."""

import sys
from pathlib import Path

import pytest

from callbacks import MLflow
from tests.callbacks.states import state_of


def test_without_the_package_the_flag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"--report_to mlflow: the package mlflow cannot be .*pip install mlflow"):
        MLflow("run", {})


def test_a_resumed_training_goes_on_in_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
