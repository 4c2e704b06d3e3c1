"""Heads of the user's own: modules in a folder of their own, named by ``--head``; no file of the project knows them."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from safetensors.torch import load_file

import predict_ner
import run_ner_crf
from analysis.report.page import write_report
from analysis.report.run_data import read_scalars
from benchmarks.serve import ask, running_service
from inference.export_onnx import export
from inference.predictor import NerPredictor
from models.heads.softmax import LOSSES
from tests.helpers import ROOT, write_corpus, write_nested_corpus
from tests.lightning_runs.lightning_runs import call_lightning, ner_options
from tests.tools.runs import call_script, options_of_run, read_json, read_predictions
from tools.script import run_script

HERE = Path(__file__).parent
BILSTM, NESTED = "my_heads:BiLstmCrf", "nested_heads:StartEnd"
OWN_OPTIONS = {"head": BILSTM, "lstm_size": 24, "lstm_learning_rate": 2e-2, "crf_learning_rate": 1e-2}


@pytest.fixture(scope="module", autouse=True)
def _modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Both heads in a folder on the path, as a user keeps them."""
    folder = tmp_path_factory.mktemp("modules")
    shutil.copy(HERE / "bilstm_crf.py", folder / "my_heads.py")
    shutil.copy(HERE / "start_end.py", folder / "nested_heads.py")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        patched.setenv("PYTHONPATH", str(folder))
        yield


@pytest.fixture(scope="module")
def options(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("bilstm")
    corpus = write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    steps = {"num_train_epochs": 6, "save_steps": 24, "log_loss_steps": 1}
    return options_of_run(encoder, corpus, home) | OWN_OPTIONS | steps


@pytest.fixture(scope="module")
def bilstm(options: dict[str, Any]) -> Path:
    """A finished run of the BiLSTM-CRF: trained, scored, predicted."""
    call_script("run_ner_crf", **options, do_train=True, from_scratch=True, do_eval=True, do_predict=True)
    return Path(options["output_dir"])


def raw_predictions(folder: Path, texts: list[str], head: str) -> list[dict[str, Any]]:
    """What predict_ner.py writes for raw texts."""
    words = [
        "predict_ner.py",
        f"--model={folder}",
        f"--head={head}",
        "--device=cpu",
        f"--output={folder / 'raw.jsonl'}",
    ]
    with patch.object(sys, "argv", [*words, *(f"--text={text}" for text in texts)]):
        run_script(predict_ner.main)
    return [json.loads(line) for line in (folder / "raw.jsonl").read_text("utf-8").splitlines()]


def test_its_options_are_flags_with_help_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, expected in [
        (["--help"], "units of the LSTM in each direction (default: 256)"),
        (["--lstm_size=0"], "--lstm_size 0: must be a whole number, at least 1"),
        (["--loss=focal"], "--loss focal has no effect: it is an option of --head softmax"),
    ]:
        with patch.object(sys, "argv", ["run_ner_crf.py", f"--head={BILSTM}", *flags]), pytest.raises(SystemExit):
            run_ner_crf.main()
        printed = capsys.readouterr()
        assert expected in printed.out + printed.err


def test_it_is_trained_scored_and_predicted(bilstm: Path) -> None:
    config, arguments = read_json(bilstm / "config.json"), read_json(bilstm / "training_args.json")
    assert (config["architectures"], config["head_source"], config["lstm_size"]) == (["BiLstmCrf"], BILSTM, 24)
    assert (arguments["head"], arguments["lstm_learning_rate"]) == (BILSTM, 2e-2)
    assert load_file(bilstm / "model.safetensors")["lstm.0.weight_hh_l0"].shape == (4 * 24, 24)
    assert read_json(bilstm / "eval_results.json")["f1"] > 0.9
    assert read_json(bilstm / "test_results.json")["f1"] > 0.9
    rates = {name: max(curve.values()) for name, curve in read_scalars(bilstm / "tensorboard").items()}
    assert rates["learning_rate/lstm"] == pytest.approx(2e-2, rel=1e-3)
    assert rates["learning_rate/crf"] == pytest.approx(1e-2, rel=1e-3)
    assert rates["learning_rate/encoder"] == pytest.approx(2e-3, rel=1e-3)


def test_it_resumes_to_the_same_bits(bilstm: Path, options: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(bilstm, tmp_path / "run")
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    for later in checkpoints[1:]:
        shutil.rmtree(later)
    (folder / "model.safetensors").unlink()
    again = {**options, "output_dir": folder, "resume_from_checkpoint": "auto"}
    call_script("run_ner_crf", **again, do_train=True, from_scratch=True)
    before, now = (load_file(one / "model.safetensors") for one in (bilstm, folder))
    assert all(now[name].equal(weight) for name, weight in before.items())
    with pytest.raises(SystemExit, match=r"--lstm_learning_rate 0\.5 .*cannot change"):
        call_script("run_ner_crf", **{**again, "lstm_learning_rate": 0.5}, do_train=True, from_scratch=True)


def test_it_predicts_and_serves_raw_text(bilstm: Path) -> None:
    records = read_predictions(bilstm)
    texts = [record["text"] for record in records]
    expected = [[(one["type"], one["start"], one["end"]) for one in record["entities"]] for record in records]
    found = NerPredictor.load(bilstm, "cpu", head=BILSTM)(texts)
    assert [[(one.type, one.start, one.end) for one in entities] for entities in found] == expected
    written = raw_predictions(bilstm, texts, BILSTM)
    assert [[(one["type"], one["start"], one["end"]) for one in record["entities"]] for record in written] == expected
    with running_service(bilstm, f"--head={BILSTM}") as service:
        answer = ask(service.port, {"text": texts[0]}).body
    assert [(one["type"], one["start"], one["end"]) for one in answer["entities"]] == expected[0]


def test_its_report_names_it(bilstm: Path, tmp_path: Path) -> None:
    page = write_report(bilstm, tmp_path / "report.html", BILSTM).read_text("utf-8")
    assert "BiLSTM-CRF" in page
    assert "lstm_size" in page


def test_it_is_exported(bilstm: Path, tmp_path: Path) -> None:
    export(bilstm, tmp_path / "model.onnx", BILSTM)  # raises where the graph computes something else
    assert (tmp_path / "model.onnx").is_file()


def test_it_is_trained_under_lightning(encoder: Path, options: dict[str, Any], tmp_path: Path) -> None:
    lightning = ner_options(encoder, Path(options["data_dir"]), tmp_path, **OWN_OPTIONS, max_epochs=6)
    call_lightning("run_pl_ner", **lightning)
    config = next(path for path in (tmp_path / "run").rglob("config.json") if "architectures" in read_json(path))
    assert read_json(config)["architectures"] == ["BiLstmCrf"]
    assert read_json(tmp_path / "run" / "test_results.json")["f1"] > 0.5


@pytest.fixture(scope="module")
def nested(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the start/end head on nested entities."""
    home = tmp_path_factory.mktemp("nested")
    corpus = write_nested_corpus(home / "corpus", {"train": 80, "dev": 20, "test": 20})
    options = options_of_run(encoder, corpus, home) | {"head": NESTED, "start_end_learning_rate": 1e-2}
    actions = {"do_train": True, "do_eval": True, "do_predict": True, "from_scratch": True}
    call_script("run_ner_softmax", **options, **actions, num_train_epochs=4, word_unit="word")
    return home / "run"


def test_a_head_with_another_target_shape_finds_nested_entities(nested: Path) -> None:
    scores = read_json(nested / "test_results.json")
    assert scores["f1"] > 0.9
    assert {name: one["f1"] > 0.9 for name, one in scores["types"].items()} == {"LOC": True, "ORG": True}
    text = "the man saw big new york co"
    (found,) = NerPredictor.load(nested, "cpu", head=NESTED)([text])
    assert {(one.type, one.surface) for one in found} == {("ORG", "big new york co"), ("LOC", "new york")}
    assert all(0.5 < one.confidence <= 1 for one in found)
    (written,) = raw_predictions(nested, [text], NESTED)
    assert {(one["type"], one["start"], one["end"]) for one in written["entities"]} == {
        ("ORG", 12, 27),
        ("LOC", 16, 24),
    }
    with running_service(nested, f"--head={NESTED}") as service:
        answer = ask(service.port, {"text": text}).body
    assert {one["type"] for one in answer["entities"]} == {"ORG", "LOC"}
    assert "start/end" in write_report(nested, nested / "report.html", NESTED).read_text("utf-8")
    with pytest.raises(ValueError, match="head StartEnd: ONNX export needs heads that choose one tag per word"):
        export(nested, nested / "model.onnx", NESTED)


def test_the_page_on_heads_shows_the_code_that_is_tested() -> None:
    assert (HERE / "bilstm_crf.py").read_text("utf-8") in code_of_the_page()[0]


def code_of_the_page() -> list[str]:
    page = (ROOT / "docs" / "heads.md").read_text("utf-8")
    return [block.partition("```")[0] for block in page.split("```python\n")[1:]]


def test_a_loss_of_the_users_own(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_losses.py").write_text(next(code for code in code_of_the_page() if "def hinge" in code))
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = {name: value for name, value in options.items() if name not in OWN_OPTIONS} | {
        "output_dir": tmp_path / "run"
    }
    training = {"do_train": True, "from_scratch": True, "loss": "my_losses:hinge"}
    call_script("run_ner_softmax", **plain, **training)
    assert read_json(tmp_path / "run" / "config.json")["tag_loss"] == "my_losses:hinge"
    losses = [value for _, value in sorted(read_scalars(tmp_path / "run" / "tensorboard")["train/loss"].items())]
    assert losses[-1] < losses[0] / 4
    monkeypatch.delitem(LOSSES, "my_losses:hinge")  # as in another process
    call_script("run_ner_softmax", **plain, do_eval=True, loss="my_losses:hinge")
    assert read_json(tmp_path / "run" / "eval_results.json")["f1"] > 0.9
    monkeypatch.delitem(LOSSES, "my_losses:hinge")
    NerPredictor.load(tmp_path / "run", "cpu")(["anna met bob"])
    with pytest.raises(SystemExit, match="was trained with --loss my_losses:hinge; add this flag if you trust"):
        call_script("run_ner_softmax", **plain, do_eval=True)
    for loss, message in {"hinge": "none of ce, focal, lsr", "my_losses:other": "no attribute 'other'"}.items():
        with pytest.raises(SystemExit, match=message):
            call_script("run_ner_softmax", **{**plain, "output_dir": tmp_path / "other"}, **training | {"loss": loss})
    with pytest.raises(SystemExit):
        call_script("run_ner_crf", **plain, **training)
    assert "--loss my_losses:hinge has no effect: it is an option of --head softmax" in capsys.readouterr().err
