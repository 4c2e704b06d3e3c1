"""Searches over flags: trials, what is left of them, and resuming."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import ROOT
from tools.sweep import Sweep, run_sweep

pytest.importorskip("optuna")
# Writes the score 1 - (x - 3)^2 - y, and can fail or wait as the flags say.
SCRIPT = """
import json, pathlib, sys, time
flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(flags["output_dir"])
folder.mkdir(exist_ok=True)
(folder / "flags.json").write_text(json.dumps(flags))
if flags.get("refuse"):
    print("script: error: unrecognized --refuse")
    sys.exit(2)
if flags.get("fail"):
    sys.exit("no memory")
if flags.get("wait") and not (folder / "checkpoint-1").exists():
    (folder / "checkpoint-1").mkdir()
    for name in ("config.json", "training_state.pt"):
        (folder / "checkpoint-1" / name).write_text("")
    time.sleep(60)
x, y = float(flags["x"]), float(flags["y"])
(folder / "eval_results.json").write_text(json.dumps({"f1": 1 - (x - 3) ** 2 - y, "loss": y, "types": {}}))
"""


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    search = {"x": {"from": 0, "to": 6}, "y": {"from": 1e-4, "to": 1e-1, "log": True}}
    return {"output_dir": str(tmp_path / "sweep"), "script": str(script), "trials": 4, "search": search}


def written(content: dict[str, Any], folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def flags_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("sweep/trial-*/flags.json"))]


def test_trials_are_ranked_and_more_can_be_added(content: dict[str, Any], tmp_path: Path) -> None:
    run_sweep(Sweep.read(written(content, tmp_path, flags={"task_name": "tiny"})))
    first = flags_of(tmp_path)
    assert len(first) == 4
    assert {flags["task_name"] for flags in first} == {"tiny"}
    assert all(flags["x"] == str(int(flags["x"])) and 1e-4 <= float(flags["y"]) <= 1e-1 for flags in first)
    run_sweep(Sweep.read(written(content, tmp_path, flags={"task_name": "tiny"}, trials=6)))
    assert flags_of(tmp_path)[:4] == first
    assert len({flags["y"] for flags in flags_of(tmp_path)}) == 6  # none is proposed again
    *_, best = sorted(flags_of(tmp_path), key=lambda flags: -((float(flags["x"]) - 3) ** 2) - float(flags["y"]))
    table = (tmp_path / "sweep" / "trials.md").read_text().splitlines()
    assert table[0] == "| trial | x | y | f1 | seconds |"
    assert table[2].split(" | ")[0].removeprefix("| ") == Path(best["output_dir"]).name
    assert f"--x {best['x']} --y {best['y']}" in table[-1]
    assert (tmp_path / "sweep" / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_a_loss_is_minimised(content: dict[str, Any], tmp_path: Path) -> None:
    run_sweep(Sweep.read(written(content, tmp_path, metric="loss", search={"x": [1, 2], "y": [0.5, 0.25, 0.75]})))
    values = [float(flags["y"]) for flags in flags_of(tmp_path)]
    assert f"| {min(values):.4f} |" in (tmp_path / "sweep" / "trials.md").read_text().splitlines()[2]


def test_an_interrupted_trial_goes_on(content: dict[str, Any], tmp_path: Path) -> None:
    path = written(content, tmp_path, flags={"wait": 1}, trials=1)
    with subprocess.Popen([sys.executable, "-m", "tools.sweep", str(path)], cwd=ROOT) as process:
        checkpoint = tmp_path / "sweep" / "trial-0000" / "checkpoint-1"
        deadline = time.monotonic() + 60
        while not checkpoint.is_dir() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) != 0
    (before,) = flags_of(tmp_path)
    run_sweep(Sweep.read(path))
    (after,) = flags_of(tmp_path)
    assert after == {**before, "resume_from_checkpoint": "auto"}
    assert "| trial-0000 |" in (tmp_path / "sweep" / "trials.md").read_text()


@pytest.mark.parametrize(
    ("flags", "message", "trials"),
    [
        ({"refuse": 1}, "trial-0000.log: script: error: unrecognized --refuse", 1),
        ({"fail": 1}, "3 trials in a row failed", 3),
    ],
)
def test_a_search_stops_where_trials_fail(
    content: dict[str, Any], tmp_path: Path, flags: dict[str, Any], message: str, trials: int
) -> None:
    with pytest.raises(ValueError, match=message):
        run_sweep(Sweep.read(written(content, tmp_path, flags=flags)))
    assert len(flags_of(tmp_path)) == trials


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serch": {}}, "expected output_dir and search, and perhaps"),
        ({"search": {}}, "search names no flags"),
        (
            {"search": {"x": 3, "y": {"from": 2, "to": 1}}},
            "search: x: expected a list .*; search: y: a range goes from",
        ),
        ({"flags": {"x": 1}, "trials": 0}, "x is both in flags and in search; trials 0: at least one"),
        ({"flags": {"output_dir": "x"}}, "the sweep sets --output_dir itself"),
        ({"script": "none.py"}, "there is no script none.py"),
    ],
)
def test_faults_of_the_file_are_named(
    content: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"sweep.yaml: {message}"):
        Sweep.read(written(content, tmp_path, **changes))
