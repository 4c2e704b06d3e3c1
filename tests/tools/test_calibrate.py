"""The tool ``calibrate`` on a small run: confidences fit better, predictions stay as they are."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from common.run_files import RunFolder
from inference.predictor import NerPredictor
from tests.tools.runs import FinishedRun, call_script, read_json
from tools import calibrate
from tools.script import run_script

TEXTS = ["anna met bob in new york", "the man left carol"]


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["calibrate.py", str(folder), *flags])
    run_script(calibrate.main)


@pytest.mark.parametrize("name", ["crf", "softmax"])
def test_confidences_fit_better_and_predictions_stay(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every third text of dev has wrong types, which the model cannot know."""
    run: FinishedRun = request.getfixturevalue(f"{name}_run")
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (clean,) = Path(run.options["data_dir"]).glob("dev*")
    texts = clean.read_text("utf-8").strip().split("\n\n")
    swapped = [text.replace("PER", "?").replace("LOC", "PER").replace("?", "LOC") for text in texts]
    noisy = [swapped[place] if place % 6 < 2 else text for place, text in enumerate(texts)]
    (tmp_path / clean.name).write_text("\n\n".join(noisy) + "\n", "utf-8")
    before = NerPredictor.load(folder, "cpu")(TEXTS)
    monkeypatch.setattr(calibrate, "_FEWEST", 5)
    call(monkeypatch, folder, "--no_cuda", f"--dev_file={tmp_path / clean.name}")
    assert "run --do_predict" in capsys.readouterr().err
    temperatures = read_json(RunFolder(folder).config)["confidence_temperatures"]
    assert temperatures[0] != 1
    assert (temperatures[1] == 1) == (name == "softmax")
    after = NerPredictor.load(folder, "cpu")(TEXTS)
    assert [[one[:4] for one in text] for text in after] == [[one[:4] for one in text] for text in before]
    assert [[one.confidence for one in text] for text in after] != [[one.confidence for one in text] for text in before]
    calibrated = read_json(RunFolder(folder).results("dev"))["calibration"]
    edited = read_json(RunFolder(folder).config) | {"confidence_temperatures": [1.0, 1.0]}
    RunFolder(folder).config.write_text(json.dumps(edited))
    data = {"output_dir": str(folder), "dev_file": str(tmp_path / clean.name)}
    call_script(run.script, **run.options | data, do_eval=True)
    uncalibrated = read_json(RunFolder(folder).results("dev"))["calibration"]
    assert calibrated["error"] < uncalibrated["error"]
    assert calibrated["brier"] < uncalibrated["brier"]


def test_too_few_predictions_are_refused(crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(crf_run.folder, tmp_path / "run")
    with pytest.raises(SystemExit, match="too few to calibrate on"):
        call(monkeypatch, tmp_path / "run", "--no_cuda")
    assert "confidence_temperatures" not in read_json(RunFolder(tmp_path / "run").config)


def test_a_model_without_its_settings_is_refused(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(crf_run.folder, tmp_path / "run")
    RunFolder(tmp_path / "run").settings.unlink()
    with pytest.raises(SystemExit, match=r"has no training_args\.json, which names the data"):
        call(monkeypatch, tmp_path / "run")


def test_a_folder_without_a_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="output_dir of a run"):
        call(monkeypatch, tmp_path)
