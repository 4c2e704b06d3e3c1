"""Runs of the heads that find overlapping entities: each is trained, resumed, scored, applied and reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from analysis.report.page import write_report
from inference.export_onnx import export
from inference.predictor import NerPredictor
from models import HEADS, BertCrfForNer
from models.heads.span_pairs import SpanPairTagger
from tests.helpers import write_nested_corpus
from tests.lightning_runs.lightning_runs import call_lightning, ner_options
from tests.tools.runs import FinishedRun, call_script, options_of_run, read_json, read_predictions
from tools.heads import head_of_folder

TEXT = "the man saw big new york co"
FOUND = {("ORG", "big new york co"), ("LOC", "new york")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nested_corpus(tmp_path_factory.mktemp("nested") / "corpus", {"train": 80, "dev": 20, "test": 20})


@pytest.fixture(scope="module", params=[name for name, head in HEADS.items() if head.nests])
def run(
    request: pytest.FixtureRequest, encoder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> FinishedRun:
    home = tmp_path_factory.mktemp(request.param)
    head = HEADS[request.param]
    options = options_of_run(encoder, corpus, home) | {"head": request.param, "head_learning_rate": 1e-2}
    options |= {"num_train_epochs": 6, "save_steps": 30, "word_unit": "word"}
    if issubclass(head, SpanPairTagger):
        options |= {"span_learning_rate": 1e-2, "num_train_epochs": 12, "save_steps": 60}
    actions = {"do_train": True, "from_scratch": True, "do_eval": True, "do_predict": True}
    script = head.script.removesuffix(".py")
    call_script(script, **options, **actions)
    return FinishedRun(script, home / "run", options)


def entities(record: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(one["type"], one["start"], one["end"]) for one in record["entities"]]


def test_nested_entities_are_learnt_scored_and_found(run: FinishedRun, tmp_path: Path) -> None:
    scores = read_json(run.folder / "test_results.json")
    assert scores["f1"] > 0.9
    assert {name: one["f1"] > 0.9 for name, one in scores["types"].items()} == {"LOC": True, "ORG": True}
    records = read_predictions(run.folder)
    predictor = NerPredictor.load(run.folder, "cpu")
    found = predictor([record["text"] for record in records])
    assert [[(one.type, one.start, one.end) for one in text] for text in found] == list(map(entities, records))
    (text,) = predictor([TEXT])
    assert {(one.type, one.surface) for one in text} == FOUND
    assert all(0.5 < one.confidence <= 1 for one in text)
    assert predictor(["", " ", "man"]) == [[], [], []]
    predictor.warm_up()
    head = HEADS[run.options["head"]]
    assert head.title in write_report(run.folder, tmp_path / "report.html").read_text("utf-8")
    if head.unexportable:
        with pytest.raises(ValueError, match=f"head {head.__name__}: {head.unexportable}"):
            export(run.folder, tmp_path / "model.onnx")


def test_a_script_that_loads_another_head_names_the_flag(run: FinishedRun) -> None:
    head, name = HEADS[run.options["head"]], run.options["head"]
    flag = "" if name == "span" else f" --head {name}"
    with pytest.raises(
        ValueError, match=f"holds the head {head.__name__}, not BertCrfForNer; use {head.script}{flag}$"
    ):
        head_of_folder(run.folder, BertCrfForNer)


@pytest.mark.parametrize("run", ["span", "biaffine"], indirect=True)
def test_an_interrupted_run_resumes_to_the_same_bits(run: FinishedRun, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    checkpoints = sorted(folder.glob("checkpoint-*[0-9]"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert checkpoints[1:]
    for later in checkpoints[1:]:
        shutil.rmtree(later)
    options = {**run.options, "output_dir": folder, "resume_from_checkpoint": "auto"}
    call_script(run.script, **options, do_train=True, from_scratch=True)
    last = checkpoints[-1].name
    before, now = (load_file(one / last / "model.safetensors") for one in (run.folder, folder))
    assert all(now[name].equal(weight) for name, weight in before.items())


def test_one_is_trained_under_lightning(encoder: Path, corpus: Path, tmp_path: Path) -> None:
    head = {"head": "crf_per_type", "head_learning_rate": 1e-2, "word_unit": "word"}
    call_lightning("run_pl_ner", **ner_options(encoder, corpus, tmp_path, **head, max_epochs=5))
    assert read_json(tmp_path / "run" / "test_results.json")["f1"] > 0.8


def test_entities_that_a_head_cannot_express_are_counted_and_scored(encoder: Path, tmp_path: Path) -> None:
    crossing = [{"type": "ORG", "start": 0, "end": 6}, {"type": "ORG", "start": 3, "end": 9}]
    for split in ("train", "dev"):
        lines = [{"text": "it saw we", "entities": [*crossing, {"type": "LOC", "start": 0, "end": 2}]}] * 4
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    options = options_of_run(encoder, tmp_path, tmp_path) | {"max_steps": 1, "do_train": True, "do_eval": True}
    call_script("run_ner_crf", **options, from_scratch=True, head="crf_per_type")
    log = (tmp_path / "run" / "run.log").read_text("utf-8")
    assert "train: 4 of 12 entities cannot be expressed by the head, which does not learn them; they are scored" in log
    assert read_json(tmp_path / "run" / "eval_results.json")["support"] == 12
