"""What the report reads from a run folder, and the commands for what is missing."""

import math
import shlex
import shutil
from pathlib import Path

import pytest
from tensorboardX import SummaryWriter

from analysis.documents import read_documents, write_documents
from analysis.report.run_data import read_run, read_scalars
from common.tag_schemes import MARKUPS, legal_transitions
from models import BertCrfForNer
from tests.tools.runs import FinishedRun, call_script, read_json


def test_a_whole_run_lacks_nothing(crf_run: FinishedRun) -> None:
    run = read_run(crf_run.folder)
    assert run.missing == {}
    assert [split.name for split in run.splits] == ["dev", "test"]
    assert all(split.has_confidences and len(split.documents) == 20 for split in run.splits)
    assert run.splits[0].results == read_json(crf_run.folder / "eval_results.json")
    assert run.scalars["train/loss"]
    assert run.head == "CRF"


def test_transitions_are_those_of_the_model(crf_run: FinishedRun) -> None:
    found = read_run(crf_run.folder).transitions
    model = BertCrfForNer.from_pretrained(crf_run.folder)
    assert found is not None
    assert found.tags == model.label_names
    C = len(found.tags)
    legal = legal_transitions(found.tags, MARKUPS["bios"])
    learnt = {(C, tag): model.crf.start_transitions[tag] for tag in range(C)}
    learnt |= {(tag, C): model.crf.end_transitions[tag] for tag in range(C)}
    learnt |= {(row, column): model.crf.transitions[row, column] for row in range(C) for column in range(C)}
    for (row, column), score in learnt.items():
        to = column if column < C else C + 1
        if legal[row, to]:
            assert found.scores[row, column] == pytest.approx(score.item())
        else:
            assert math.isnan(found.scores[row, column])
    assert not legal.all()


def test_a_softmax_has_no_transitions(softmax_run: FinishedRun) -> None:
    run = read_run(softmax_run.folder)
    assert run.transitions is None
    assert run.head == "softmax"


def copied(run: FinishedRun, tmp_path: Path, *without: str) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*", *without))
    return folder


def test_the_command_that_is_named_makes_what_is_missing(crf_run: FinishedRun, tmp_path: Path) -> None:
    folder = copied(crf_run, tmp_path, "eval_*")
    (what,) = (run := read_run(folder)).missing
    assert what == "Scores and sentences of dev"
    python, script, *flags = shlex.split(run.missing[what])
    assert (python, script) == ("python", "run_ner_crf.py")
    call_script("run_ner_crf", **dict(flag.removeprefix("--").split("=", 1) for flag in flags))
    assert read_run(folder).missing == {}


def test_results_without_analysis_are_said_to_be_missing(crf_run: FinishedRun, tmp_path: Path) -> None:
    folder = copied(crf_run, tmp_path)
    (folder / "test_results.json").write_text('{"f1": 0.5}')
    assert list(read_run(folder).missing) == ["Scores and sentences of test"]


def test_a_split_that_was_predicted_without_labels_is_not_missed(crf_run: FinishedRun, tmp_path: Path) -> None:
    folder = copied(crf_run, tmp_path, "test_results.*", "test_documents.*")
    assert read_run(folder).missing == {}


def test_curves_and_confidences_can_be_missing(crf_run: FinishedRun, tmp_path: Path) -> None:
    folder = copied(crf_run, tmp_path, "tensorboard")
    documents = read_documents(folder / "eval_documents.jsonl")
    write_documents(folder / "eval_documents.jsonl", [one._replace(confidences=()) for one in documents])
    missing = read_run(folder).missing
    assert list(missing) == ["Training curves", "Confidences of dev"]
    assert "--do_train=True" in missing["Training curves"]
    assert "--do_eval=True" in missing["Confidences of dev"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run.*--output_dir"):
        read_run(tmp_path)


def write_events(folder: Path, suffix: str, values: dict[int, float]) -> None:
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for step, value in values.items():
            writer.add_scalar("loss", value, step)
        writer.add_text("note", "not a scalar", 1)


def test_the_scalars_of_all_files_are_read_and_nothing_else(tmp_path: Path) -> None:
    write_events(tmp_path, ".0", {1: 0.5, 2: 0.25})
    write_events(tmp_path, ".2", {3: 0.125})
    assert read_scalars(tmp_path) == {"loss": {1: 0.5, 2: 0.25, 3: 0.125}}


def test_what_a_killed_run_left_half_written_is_left_out(tmp_path: Path) -> None:
    write_events(tmp_path, ".0", {1: 0.5, 2: 0.25})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_scalars(tmp_path).get("loss", {}) in ({}, {1: 0.5}, {1: 0.5, 2: 0.25})
