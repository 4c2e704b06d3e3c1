"""Corpora and predictions in other formats, and training on what was converted."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.tag_schemes import tags_to_entities
from processors.corpus import Corpus
from processors.examples import DataError
from processors.formats.writers import FORMATS
from tests.tools.runs import FinishedRun, call_script, options_of_run, read_json, read_predictions
from tools.convert_corpus import convert_corpus, main

Call = Callable[..., None]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command line."""

    def call(*argv: object) -> None:
        monkeypatch.setattr(sys, "argv", ["convert_corpus.py", *map(str, argv)])
        main()

    return call


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_of_splits_keeps_all_words_and_entities(corpus_dir: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    lines = convert_corpus(str(corpus_dir), out, FORMATS[name])
    assert len(lines) == 3
    for split, line in zip(("train", "dev", "test"), lines, strict=True):
        before, after = Corpus("", corpus_dir).inventory(split), Corpus("", out).inventory(split)
        assert (after.words, after.entities, after.types) == (before.words, before.entities, before.types)
        assert line.endswith(f"{before.sentences} texts, {before.words} words, {before.entities} entities")
        assert after.findings.counts == {}
        originals = [(one.words, one.entities) for one in Corpus("", corpus_dir).examples(split)]
        assert [(one.words, one.entities) for one in Corpus("", out).examples(split)] == originals


@pytest.mark.parametrize("name", ["doccano", "label_studio", "brat"])
def test_a_run_on_a_converted_corpus_scores_as_one_on_the_corpus(
    encoder: Path, corpus_dir: Path, tmp_path: Path, name: str
) -> None:
    convert_corpus(str(corpus_dir), tmp_path / "converted", FORMATS[name])
    results = []
    for data_dir, home in ((corpus_dir, tmp_path / "one"), (tmp_path / "converted", tmp_path / "two")):
        options = {**options_of_run(encoder, data_dir, home), "from_scratch": True, "num_train_epochs": 3.0}
        call_script("run_ner_crf", **options, do_train=True, do_eval=True, do_predict=True, span_edges="error")
        results.append([read_json(home / "run" / f"{split}_results.json") for split in ("eval", "test")])
    assert results[0][0]["f1"] > 0.3
    assert results[0] == results[1]


@pytest.mark.corpora
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("corpus", ["cluener/dev.json", "cner/dev.char.bmes"])
def test_real_corpora_come_back_as_they_were(data_root: Path, tmp_path: Path, corpus: str, name: str) -> None:
    target = tmp_path / f"dev{FORMATS[name].suffix}"
    convert_corpus(str(data_root / corpus), target, FORMATS[name], word_unit="char", span_edges="error")
    before, after = (
        Corpus("", split_files={"dev": path}, word_unit="char", span_edges="error")
        for path in (data_root / corpus, target)
    )
    assert [(one.text, one.entities) for one in after.examples("dev")] == [
        (one.text, one.entities) for one in before.examples("dev")
    ]


def test_predictions_become_tasks_with_their_confidences(
    crf_run: FinishedRun, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "tasks.json"
    call(crf_run.folder / "test_predictions.jsonl", target, "--to", "label_studio")
    records, tasks = read_predictions(crf_run.folder), read_json(target)
    assert len(tasks) == len(records)
    for record, task in zip(records, tasks, strict=True):
        assert (task["data"], task["annotations"]) == ({"id": record["id"], "text": record["text"]}, [])
        regions = task["predictions"][0]["result"]
        assert [(one["value"]["start"], one["value"]["end"], one["score"]) for one in regions] == [
            (entity["start"], entity["end"], entity["confidence"]) for entity in record["entities"]
        ]
    assert f"{target}: {len(records)} texts" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["doccano", "brat", "conll", "jsonl"])
def test_predictions_become_a_corpus_to_correct(crf_run: FinishedRun, tmp_path: Path, name: str) -> None:
    target = tmp_path / f"predicted{FORMATS[name].suffix}"
    convert_corpus(str(crf_run.folder / "test_predictions.jsonl"), target, FORMATS[name])
    found = [(example.words, example.entities) for example in Corpus("", split_files={"test": target}).examples("test")]
    assert found == [
        (record["tokens"], tags_to_entities(record["tags"])) for record in read_predictions(crf_run.folder)
    ]


def test_all_that_did_not_fit_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    spans = [[0, 3, "PER"], [0, 4, "PER"], [5, 7, "PER"], [9, 11, "PER"]]
    path.write_text(json.dumps({"id": 3, "text": "Anna met Bob", "label": spans}) + "\n")
    assert convert_corpus(str(path), tmp_path / "out.txt", FORMATS["conll"]) == [
        f"{tmp_path / 'out.txt'}: 1 texts, 3 words, 3 entities",
        f"{tmp_path / 'out.txt'}: 3 entities whose edges cut words, widened to whole words (--span_edges snap)",
        f"{path}:1: 3: PER 'Ann' [0, 3) cuts 'Anna', taken as 'Anna' [0, 4)",
        f"{path}:1: 3: PER 'me' [5, 7) cuts 'met', taken as 'met' [5, 8)",
        f"{path}:1: 3: PER 'Bo' [9, 11) cuts 'Bob', taken as 'Bob' [9, 12)",
    ]
    dropped = convert_corpus(str(path), tmp_path / "dropped.txt", FORMATS["conll"], span_edges="drop")
    assert dropped[0].endswith("1 texts, 3 words, 1 entities")
    with pytest.raises(DataError, match=r"train\.jsonl:1: 3: PER 'Ann'"):
        convert_corpus(str(path), tmp_path / "refused.txt", FORMATS["conll"], span_edges="error")
    assert not (tmp_path / "refused.txt").exists()


def test_a_data_set_of_the_hub_is_converted(tmp_path: Path) -> None:
    import datasets

    tags = datasets.Dataset.from_dict({"tokens": [["Anna", "met"]], "tags": [["B-PER", "O"]]})
    datasets.DatasetDict({"train": tags, "test": tags}).save_to_disk(tmp_path / "hub")
    convert_corpus(f"hub:{tmp_path / 'hub'}", tmp_path / "out", FORMATS["brat"])
    assert (tmp_path / "out" / "train" / "000000-train-0.ann").read_text() == "T1\tPER 0 4\tAnna\n"
    assert (tmp_path / "out" / "test").is_dir()


def test_what_is_there_is_not_written_over(corpus_dir: Path, call: Call) -> None:
    before = (corpus_dir / "dev.txt").read_bytes()
    with pytest.raises(SystemExit, match=r"dev\.txt: already exists"):
        call(corpus_dir / "train.txt", corpus_dir / "dev.txt", "--to", "doccano")
    assert (corpus_dir / "dev.txt").read_bytes() == before


def test_half_a_corpus_is_taken_away(corpus_dir: Path, tmp_path: Path, call: Call) -> None:
    (corpus_dir / "test.txt").write_text("Anna B-PER\nmet\n")
    with pytest.raises(SystemExit, match=r"test\.txt:2: 1 columns"):
        call(corpus_dir, tmp_path / "out", "--to", "brat")
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_there_is_named(tmp_path: Path, call: Call) -> None:
    with pytest.raises(SystemExit, match=r"no: no such file or folder\Z"):
        call(tmp_path / "no", tmp_path / "out", "--to", "brat")


def test_a_word_unit_that_there_is_not_is_refused(
    corpus_dir: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(corpus_dir, tmp_path / "out", "--to", "brat", "--word_unit", "syllable")
    assert "invalid choice: 'syllable'" in capsys.readouterr().err
