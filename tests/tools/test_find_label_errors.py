"""Label errors: the folds, the ranking, what is written, and that a corrected file is a training file again."""

import json
import random
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from analysis.label_errors import Likely, Suspicion, suspicions_in_text
from common.entities import Entity
from processors.corpus import Corpus
from processors.examples import Example
from tests.helpers import write_corpus
from tests.tools.runs import flags, read_json
from tools import find_label_errors
from tools.folds import make_folds
from tools.script import run_script


def examples_of(documents: dict[str, int]) -> list[Example]:
    names = [name for name, count in documents.items() for _ in range(count)]
    return [Example(f"{place}", [f"word{place}", "x"], [], document=name) for place, name in enumerate(names)]


def test_folds_hold_each_text_once_and_keep_documents_together() -> None:
    examples = examples_of({"a": 5, "b": 2, "c": 4, "d": 3, "": 6})
    folds = make_folds(examples, 4, seed=1)
    assert sorted(text for fold in folds for text in fold.held_out) == list(range(20))
    for fold in folds:
        assert sorted([*fold.held_out, *fold.others]) == list(range(20))
        held_out = {examples[text].document for text in fold.held_out} - {""}
        assert held_out.isdisjoint(examples[text].document for text in fold.others)
    sizes = [len(fold.held_out) for fold in folds]
    assert max(sizes) - min(sizes) <= 2
    assert make_folds(examples, 4, seed=1) == folds != make_folds(examples, 4, seed=2)
    with pytest.raises(ValueError, match="12 folds need at least as many documents; there are 10"):
        make_folds(examples, 12, seed=1)


def test_no_model_sees_a_text_that_it_judges_under_another_number() -> None:
    examples = [Example(f"{place}", ["The" if place % 2 else "the", f"{place // 2}"], []) for place in range(12)]
    for fold in make_folds(examples, 3, seed=0):
        own = {examples[text].words[1] for text in fold.held_out}
        assert own.isdisjoint(examples[text].words[1] for text in fold.others)


def test_what_is_suspicious() -> None:
    right, wrong_type, too_long, spurious = (
        Entity("PER", 0, 1),
        Entity("LOC", 3, 3),
        Entity("ORG", 5, 7),
        Entity("LOC", 8, 8),
    )
    gold = [
        Likely(right, 0.875, 0.0625),
        Likely(wrong_type, 0.125, 0.0),
        Likely(too_long, 0.25, 0.125),
        Likely(spurious, 0.25, 0.75),
    ]
    candidates = [
        Likely(right, 0.875, 0.0625),
        Likely(Entity("ORG", 3, 3), 0.75, 0.0),
        Likely(Entity("PER", 3, 3), 0.125, 0.0),
        Likely(Entity("ORG", 6, 7), 0.625, 0.25),
        Likely(Entity("MISC", 10, 10), 0.375, 0.125),
        Likely(Entity("MISC", 10, 11), 0.5, 0.125),
        Likely(Entity("PER", 13, 13), 0.0625, 0.75),
    ]
    found = list(suspicions_in_text(gold, candidates))
    kinds = ["spurious", "wrong", "wrong", "spurious", "missing", "missing"]
    assert [one.kind for one in found] == kinds
    assert [found.index(one) for one in sorted(found, key=lambda one: one.order)] == [1, 2, 4, 5, 3, 0]
    assert found == [
        Suspicion(-0.8125, right, 0.875, None, 0.0625),
        Suspicion(0.625, wrong_type, 0.125, Entity("ORG", 3, 3), 0.75),
        Suspicion(0.375, too_long, 0.25, Entity("ORG", 6, 7), 0.625),
        Suspicion(0.5, spurious, 0.25, None, 0.75),
        Suspicion(0.375, None, 0.125, Entity("MISC", 10, 11), 0.5),
        Suspicion(-0.6875, None, 0.75, Entity("PER", 13, 13), 0.0625),
    ]


def find(**options: Any) -> None:
    with patch.object(sys, "argv", ["find_label_errors", *flags(**options)]):
        run_script(find_label_errors.main)


@pytest.fixture(scope="module")
def found(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a search in a corpus with two wrong labels, and its flags."""
    home = tmp_path_factory.mktemp("label_errors")
    corpus = write_corpus(home / "corpus", {"train": 90, "dev": 10})
    sentences = (corpus / "train.txt").read_text("utf-8").split("\n\n")
    generator, spoilt = random.Random(3), 0
    for place in generator.sample(range(len(sentences)), 20):
        if spoilt < 2 and "paris B-LOC" in sentences[place]:
            sentences[place] = sentences[place].replace("paris B-LOC", "paris B-PER" if spoilt else "paris O", 1)
            spoilt += 1
    assert spoilt == 2
    (corpus / "train.txt").write_text("\n\n".join(sentences) + "\n", "utf-8")
    options = {
        "task_name": "tiny",
        "data_dir": corpus,
        "output_dir": home / "out",
        "model_name_or_path": encoder,
        "feature_cache_dir": home / "cache",
        "from_scratch": True,
        "learning_rate": 3e-3,
        "num_train_epochs": 15.0,
        "evaluate_during_training": False,
        "no_cuda": True,
        "folds": 2,
        "min_suspicion": 0.3,
        "report_to": "none",
    }
    find(**options, tasks="label_studio")
    return home, options


def records_of(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "out" / "label_errors.jsonl").read_text("utf-8").splitlines()]


def test_wrong_labels_come_first(found: tuple[Path, dict[str, Any]]) -> None:
    home, _ = found
    records = records_of(home)
    assert [record["rank"] for record in records] == list(range(1, len(records) + 1))
    order = [(record["kind"] == "spurious", -record["suspicion"]) for record in records]
    assert order == sorted(order)
    assert min(record["suspicion"] for record in records) >= 0.3
    first = {record["kind"]: record for record in records[:2]}
    assert first["missing"]["gold"] is None
    assert first["missing"]["suggestion"]["text"] == first["wrong"]["gold"]["text"] == "paris"
    assert (first["wrong"]["gold"]["type"], first["wrong"]["suggestion"]["type"]) == ("PER", "LOC")
    for record in first.values():
        path, _, line = record["place"].rpartition(":")
        assert Path(path).read_text("utf-8").splitlines()[int(line) - 1].startswith("paris ")
    page = (home / "out" / "label_errors.html").read_text("utf-8")
    assert page.count("<li>") == len(records)
    assert '<bdi class="gold suggested">paris</bdi>' in page


def test_a_finished_fold_is_not_trained_again(found: tuple[Path, dict[str, Any]]) -> None:
    home, options = found
    weights = [home / "out" / f"fold_{number}" / "model.safetensors" for number in (1, 2)]
    written, records = [path.stat().st_mtime_ns for path in weights], records_of(home)
    find(**options, tasks="doccano")
    assert [path.stat().st_mtime_ns for path in weights] == written
    assert records_of(home) == records


def test_other_settings_need_another_folder(
    found: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    home, options = found
    with pytest.raises(SystemExit) as end:
        find(**{**options, "num_train_epochs": 2.0, "folds": 3})
    assert f"{home / 'out'} holds folds with another folds, num_train_epochs; name another" in str(end.value)


@pytest.mark.parametrize("tool", ["doccano", "doccano_utf16", "label_studio"])
def test_a_corrected_file_is_a_training_file(found: tuple[Path, dict[str, Any]], tool: str, tmp_path: Path) -> None:
    home, options = found
    find(**options, tasks=tool)
    path = next((home / "out").glob("to_correct.json" if tool == "label_studio" else "to_correct.jsonl"))
    spoilt = next(record for record in records_of(home) if record["kind"] == "wrong" and "paris" in record["words"])
    exported = tmp_path / f"export{path.suffix}"
    if tool == "label_studio":
        tasks = read_json(path)
        assert tasks[0]["data"]["suspicion"] >= tasks[1]["data"]["suspicion"]
        task = next(task for task in tasks if task["data"]["id"] == spoilt["id"])
        assert task["predictions"][0]["result"]
        region = next(one for one in task["annotations"][0]["result"] if one["value"]["labels"] == ["PER"])
        region["value"]["labels"] = ["LOC"]
        for number, one in enumerate(tasks):  # as Label Studio exports them
            one |= {"id": number, "project": 1, "total_annotations": 1}
            one["annotations"][0] |= {"id": number, "completed_by": 1, "ground_truth": False, "lead_time": 3.2}
        exported.write_text(json.dumps(tasks), "utf-8")
    else:
        tasks = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        task = next(task for task in tasks if task["id"] == spoilt["id"])
        assert "paris" in task["remark"]
        label = next(one for one in task["label"] if one[2] == "PER")
        label[2] = "LOC"
        exported.write_text("".join(json.dumps({**one, "Comments": []}) + "\n" for one in tasks), "utf-8")
    before = {one.guid: one for one in Corpus("tiny", Path(str(options["data_dir"]))).examples("train")}
    after = {one.guid: one for one in Corpus("tiny", split_files={"train": exported}).examples("train")}
    assert before.keys() == after.keys()
    changed = [guid for guid in before if before[guid].entities != after[guid].entities]
    assert changed == [spoilt["id"]]
    assert all(before[guid].words == after[guid].words for guid in before)


def test_what_cannot_be_judged_is_refused(found: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    _, options = found
    with pytest.raises(SystemExit, match="StartEnd gives no probabilities"):
        find(**options, head="tests.models.heads.start_end:StartEnd")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="by one process"):
        find(**options)
