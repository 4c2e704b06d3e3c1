"""The tool ``calibrate`` on a small run: confidences fit better, predictions stay as they are."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from common.entities import Entity
from common.run_files import RunFolder
from inference.asked import Asked
from inference.predictor import NerPredictor
from models.recalibration import Recalibration, TrainingEntities
from tests.tools.runs import FinishedRun, call_script, edit_json, read_json
from tools import calibrate
from tools.heads import head_of_folder
from tools.loading import load_model_and_tokenizer
from tools.run import Run
from tools.script import run_script
from tools.settings import Settings

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
    monkeypatch.setattr(calibrate, "_FEWEST_OF_KIND", 2)
    call(monkeypatch, folder, "--no_cuda", f"--dev_file={tmp_path / clean.name}")
    assert "run --do_predict" in capsys.readouterr().err
    assert read_json(RunFolder(folder).config).get("recalibration") is not None, "no curves kept"
    temperatures = read_json(RunFolder(folder).config)["confidence_temperatures"]
    assert temperatures[0] != 1
    assert (temperatures[1] == 1) == (name == "softmax")
    after = NerPredictor.load(folder, "cpu")(TEXTS)
    assert [[one[:4] for one in text] for text in after] == [[one[:4] for one in text] for text in before]
    assert [[one.confidence for one in text] for text in after] != [[one.confidence for one in text] for text in before]
    calibrated = read_json(RunFolder(folder).results("dev"))["calibration"]
    edit_json(RunFolder(folder).config, confidence_temperatures=None, recalibration=None)
    data = {"output_dir": str(folder), "dev_file": str(tmp_path / clean.name)}
    call_script(run.script, **run.options | data, do_eval=True)
    uncalibrated = read_json(RunFolder(folder).results("dev"))["calibration"]
    assert calibrated["error"] < uncalibrated["error"]
    assert calibrated["brier"] < uncalibrated["brier"]


@pytest.fixture
def with_curves(crf_run: FinishedRun, tmp_path: Path) -> Path:
    """A run that doubles the odds of New York, and divides those of other names by e."""
    folder = tmp_path / "run"
    shutil.copytree(crf_run.folder, folder)
    known = TrainingEntities.collect([(["new", "york"], [Entity("LOC", 0, 1)])])
    curves = Recalibration(known, [(1.0, -1.0), (1.0, -2.0), (1.0, float(np.log(2)))])
    edit_json(RunFolder(folder).config, recalibration=curves.as_config())
    return folder


def test_curves_are_applied_by_the_familiarity_of_a_name(with_curves: Path, crf_run: FinishedRun) -> None:
    before, after = (dict[str, float](), dict[str, float]())
    for found, folder in ((before, crf_run.folder), (after, with_curves)):
        found.update({one.surface: one.confidence for text in NerPredictor.load(folder, "cpu")(TEXTS) for one in text})
    assert {"new york", "bob"} <= before.keys() == after.keys()
    for name, factor in (("new york", 2.0), ("bob", np.exp(-1))):
        odds, corrected = (one[name] / (1 - one[name]) for one in (before, after))
        assert corrected == pytest.approx(factor * odds, rel=0.02)


def test_candidates_are_those_of_the_corrected_probabilities(with_curves: Path) -> None:
    def found(asked: Asked) -> dict[tuple[int, str, int, int], float]:
        texts = NerPredictor.load(with_curves, "cpu", asked=asked)(TEXTS)
        return {(number, *one[:3]): one.confidence for number, text in enumerate(texts) for one in text}

    everything = found(Asked(threshold=0.002, candidates=True))
    assert len(everything) > len(TEXTS)
    for threshold in (0.01, 0.3):
        expected = {key: value for key, value in everything.items() if value >= threshold}
        assert found(Asked(threshold=threshold, candidates=True)) == pytest.approx(expected)


def test_training_goes_on_without_the_corrections(with_curves: Path, crf_run: FinishedRun) -> None:
    settings = {**crf_run.options, "model_name_or_path": str(with_curves), "do_train": True}
    run = Run.of(Settings.of(**settings))
    _, model, _ = load_model_and_tokenizer(run, head_of_folder(with_curves))
    assert Recalibration.of(model.config) is None


def test_a_curve_is_found_again() -> None:
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.02, 0.98, 100_000)
    true = 1 / (1 + np.exp(-(0.6 * np.log(confidences / (1 - confidences)) - 0.7)))
    slope, intercept = calibrate.fit_curve(confidences, generator.random(100_000) < true)
    assert (slope, intercept) == pytest.approx((0.6, -0.7), abs=0.03)


@pytest.mark.parametrize("right", [True, False])
def test_a_curve_stays_finite_where_all_are_right_or_wrong(right: bool) -> None:
    slope, intercept = calibrate.fit_curve(np.linspace(0.6, 0.99, 30), np.full(30, right))
    assert np.isfinite([slope, intercept]).all()
    corrected = 1 / (1 + np.exp(-(slope * np.log(9) + intercept)))  # of 0.9
    assert (corrected > 0.9) == right


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
