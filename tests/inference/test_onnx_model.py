"""Exported files at work: the predictor finds with onnxruntime what it finds with torch; files of 8 bits."""

import json
import shutil
import sys
from pathlib import Path

import onnx
import pytest

import predict_ner
from common.entities import Entity
from inference.asked import Asked
from inference.export_onnx import export, main
from inference.onnx_model import open_session
from inference.predictor import NerPredictor
from models.recalibration import Recalibration, TrainingEntities
from tests.tools.runs import FinishedRun, edit_json, read_json

TEXTS = ["the man met dan lee near new york", "", "acme left paris, and anna saw it. " * 20]


@pytest.fixture(scope="module")
def calibrated(crf_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose confidences have been corrected."""
    path = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(crf_run.folder, path)
    known = TrainingEntities.collect([(["new", "york"], [Entity("LOC", 0, 1)])])
    edit_json(path / "config.json", recalibration=Recalibration(known, [(0.5, -1), (1, -2), (1, 2)]).as_config())
    return path


@pytest.fixture(scope="module")
def folder(calibrated: Path) -> Path:
    """A file and the tokenizer."""
    path = calibrated.parent / "onnx"
    export(calibrated, path)
    return path


def test_a_folder_of_file_and_tokenizer_predicts_as_the_run(folder: Path, calibrated: Path) -> None:
    files = {"model.onnx", "tokenizer.json", "tokenizer_config.json", "eval_dial.json"}
    assert {path.name for path in folder.iterdir()} == files
    torch_ones, onnx_ones = NerPredictor.load(calibrated, "cpu"), NerPredictor.load(folder)
    assert (onnx_ones.max_seq_length, onnx_ones.cutter.unit) == (torch_ones.max_seq_length, torch_ones.cutter.unit)
    expected, found = torch_ones(TEXTS), onnx_ones(TEXTS)
    assert sum(map(len, expected)) > 10
    for theirs, ours in zip(expected, found, strict=True):
        assert [one[:4] for one in ours] == [one[:4] for one in theirs]
        assert [one.confidence for one in ours] == pytest.approx([one.confidence for one in theirs], abs=1e-4)
    words = [text.split() or ["a"] for text in TEXTS]
    assert onnx_ones.tag_words(words) == torch_ones.tag_words(words)
    onnx_ones.warm_up()
    asked = Asked(recall=0.9)
    many = [NerPredictor.load(one, asked=asked, device="cpu")(TEXTS) for one in (calibrated, folder)]
    assert [[one[:4] for one in text] for text in many[0]] == [[one[:4] for one in text] for text in many[1]]


def test_the_command_takes_a_file(
    folder: Path, crf_run: FinishedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for model in (crf_run.folder, folder / "model.onnx"):
        monkeypatch.setattr(sys, "argv", ["predict_ner", f"--model={model}", f"--text={TEXTS[0]}", "--format=conll"])
        predict_ner.main()
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert "B-" in found[0]


def test_what_the_file_cannot_do_is_said(folder: Path, crf_run: FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="runs on the CPU, not on cuda"):
        NerPredictor.load(folder, "cuda")
    with pytest.raises(ValueError, match="has its own precision; int8 is for models of torch"):
        NerPredictor.load(folder, dtype="int8")
    with pytest.raises(ValueError, match="--decode viterbi: BertCrfForNer has no such option"):
        NerPredictor.load(folder, decode="viterbi")
    with pytest.raises(ValueError, match="no such file; write it with"):
        NerPredictor.load(crf_run.folder / "other.onnx")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="cannot be opened by onnxruntime"):
        NerPredictor.load(tmp_path)
    model = onnx.load(folder / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="has no config and head in its metadata"):
        NerPredictor.load(tmp_path)


def test_a_missing_onnxruntime_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inference.onnx_model", None)
    with pytest.raises(ValueError, match=r"needs onnxruntime .*: pip install onnxruntime"):
        NerPredictor.load(folder)


def test_another_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    vocab = read_json(copy / "tokenizer.json")
    names = list(vocab["model"]["vocab"])
    vocab["model"]["vocab"] |= {names[-1]: vocab["model"]["vocab"][names[-2]], names[-2]: len(names) - 1}
    edit_json(copy / "tokenizer.json", model=vocab["model"])
    with pytest.raises(ValueError, match="vocabulary differs from that in training"):
        NerPredictor.load(copy)


def test_eight_bits_are_written_with_their_figures(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.onnx"
    command = ["export_onnx", str(crf_run.folder), f"--output={path}", "--int8", "--max_f1_loss=100"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert "F1 on dev" in capsys.readouterr().out
    figures = json.loads(open_session(path).get_modelmeta().custom_metadata_map["int8"])
    assert figures["dev_f1"] == round(100 * read_json(crf_run.folder / "eval_results.json")["f1"], 2)
    assert figures["max_f1_loss"] == 100
    assert 0 < figures["bytes_int8"] < figures["bytes"]
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(crf_run.folder / file, tmp_path)
    assert len(NerPredictor.load(path)(TEXTS)) == len(TEXTS)


def test_eight_bits_that_lose_too_much_leave_no_file(crf_run: FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"F1 on dev \d+\.\d\d in float32, \d+\.\d\d in int8: it loses more than"):
        export(crf_run.folder, tmp_path / "new" / "small.onnx", max_f1_loss=-101.0)
    assert not list(tmp_path.iterdir())


def test_eight_bits_need_the_data_of_the_run(crf_run: FinishedRun, tmp_path: Path) -> None:
    copy = shutil.copytree(crf_run.folder, tmp_path / "run")
    (copy / "training_args.json").unlink()
    with pytest.raises(ValueError, match=r"has no training_args.json, which names the data of a run"):
        export(copy, tmp_path / "small.onnx", max_f1_loss=1.0)
