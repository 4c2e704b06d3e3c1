"""A run of Weights & Biases, without a network."""

import sys
from pathlib import Path

import pytest

from callbacks import WandB
from tests.callbacks.states import state_of


def test_without_the_package_the_flag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"--report_to wandb: the package wandb cannot be .*pip install wandb"):
        WandB("run", {})


def test_a_run_is_kept_offline_and_goes_on_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
