"""Predictions of test: lines, offsets, scores, submissions."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.entities import Annotation
from common.tag_schemes import tags_to_entities
from processors.features.dataset import Document
from tests.tools.ranks import on_ranks
from tests.tools.runs import FinishedRun, prepared, read_json, read_predictions, replace
from tools.decoding import TaggedDocument
from tools.evaluate import predict, prediction_record
from tools.run import Run


def predict_lines(args: Run, corpus_dir: Path, name: str, content: str) -> list[dict[str, Any]]:
    """Predicts another test file."""
    (corpus_dir / "test.txt").unlink(missing_ok=True)
    (corpus_dir / name).write_text(content, "utf-8", errors="surrogatepass")
    args, model, tokenizer = prepared(args)
    predict(args, model, tokenizer)
    return read_predictions(args.folder.path)


PER = {"type": "PER", "first_word": 0, "last_word": 1}
ORG = {"type": "ORG", "first_word": 3, "last_word": 3}


def test_entities_have_places_in_tokens_and_in_the_text() -> None:
    offsets = np.array([(0, 3), (4, 7), (8, 12), (13, 17)], np.int32)
    document = Document("test-0", "dan lee left acme", offsets, Annotation(4, None))
    tags = ["B-PER", "I-PER", "O", "S-ORG"]
    record = prediction_record(document, TaggedDocument(0, tags, tags_to_entities(tags), [0.5, 0.25], 0.0))
    assert record == {
        "format_version": 2,
        "id": "test-0",
        "text": "dan lee left acme",
        "tokens": ["dan", "lee", "left", "acme"],
        "tags": tags,
        "entities": [
            {**PER, "start": 0, "end": 7, "text": "dan lee", "confidence": 0.5},
            {**ORG, "start": 13, "end": 17, "text": "acme", "confidence": 0.25},
        ],
    }


@pytest.mark.parametrize("run_name", ["crf_run", "softmax_run"])
def test_every_text_has_its_line_and_every_entity_its_surface(run_name: str, request: pytest.FixtureRequest) -> None:
    run: FinishedRun = request.getfixturevalue(run_name)
    blocks = Path(run.options["data_dir"], "test.txt").read_text("utf-8").strip().split("\n\n")
    records = read_predictions(run.folder)
    assert len(records) == len(blocks)
    for record, block in zip(records, blocks, strict=True):
        assert record["tokens"] == [line.split()[0] for line in block.splitlines()]
        assert len(record["tags"]) == len(record["tokens"])
        assert [tuple(entity[key] for key in ("type", "first_word", "last_word")) for entity in record["entities"]] == [
            tuple(entity) for entity in tags_to_entities(record["tags"])
        ]
        for entity in record["entities"]:
            assert record["text"][entity["start"] : entity["end"]] == entity["text"]
            assert entity["text"] == " ".join(record["tokens"][entity["first_word"] : entity["last_word"] + 1])
    assert sum(len(record["entities"]) for record in records) > 10


def test_the_scores_are_those_of_the_lines(crf_run: FinishedRun) -> None:
    gold = [
        set(tags_to_entities([line.split()[1] for line in block.splitlines()]))
        for block in Path(crf_run.options["data_dir"], "test.txt").read_text("utf-8").strip().split("\n\n")
    ]
    found = [
        {tuple(entity[key] for key in ("type", "first_word", "last_word")) for entity in record["entities"]}
        for record in read_predictions(crf_run.folder)
    ]
    correct = sum(len(left & right) for left, right in zip(gold, found, strict=True))
    results = read_json(crf_run.folder / "test_results.json")
    assert results["precision"] == pytest.approx(correct / sum(map(len, found)))
    assert results["recall"] == pytest.approx(correct / sum(map(len, gold)))
    assert results["support"] == sum(map(len, gold))


def test_an_unlabelled_split_is_predicted_and_not_scored(crf_args: Run, corpus_dir: Path) -> None:
    (corpus_dir / "test.txt").write_text("anna\nmet\nbob\n\nhe\nleft\n", "utf-8")
    crf_args, model, tokenizer = prepared(crf_args)
    assert predict(crf_args, model, tokenizer) == {}
    assert [record["tokens"] for record in read_predictions(crf_args.folder.path)] == [
        ["anna", "met", "bob"],
        ["he", "left"],
    ]
    assert not Path(crf_args.folder.path, "test_results.json").exists()


def test_a_split_that_is_labelled_in_part_is_not_scored(crf_args: Run, corpus_dir: Path) -> None:
    lines = ['{"tokens": ["anna"], "tags": ["B-PER"]}', '{"tokens": ["bob"]}']
    records = predict_lines(crf_args, corpus_dir, "test.jsonl", "\n".join(lines))
    assert len(records) == 2
    assert not Path(crf_args.folder.path, "test_results.json").exists()


def test_raw_text_keeps_its_offsets_and_ids(crf_args: Run, corpus_dir: Path) -> None:
    text = "  anna,\tmet  bob!"
    records = predict_lines(crf_args, corpus_dir, "test.jsonl", json.dumps({"id": 7, "text": text}))
    assert records[0]["id"] == "7"
    assert records[0]["text"] == text
    assert records[0]["tokens"] == ["anna", ",", "met", "bob", "!"]
    for entity in records[0]["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]


def test_empty_texts_have_their_lines_too(crf_args: Run, corpus_dir: Path) -> None:
    lines = [json.dumps({"id": number, "text": text}) for number, text in enumerate(["", "anna met", "", "   "])]
    records = predict_lines(crf_args, corpus_dir, "test.jsonl", "\n".join(lines))
    assert [record["id"] for record in records] == ["0", "1", "2", "3"]
    assert [len(record["tags"]) for record in records] == [0, 2, 0, 0]


@pytest.mark.parametrize("text", ["他说🎉你好", "zero\u200bwidth", "\u3000全角", "lone \ufffd half"])
def test_odd_characters_are_written_as_they_are(crf_args: Run, corpus_dir: Path, text: str) -> None:
    (corpus_dir / "test.txt").unlink()
    written = json.dumps({"text": text}).replace("\\ufffd", "\\ud83d")  # a lone surrogate is replaced
    (corpus_dir / "test.jsonl").write_text(written, "utf-8")
    crf_args, model, tokenizer = prepared(crf_args)
    predict(crf_args, model, tokenizer)
    record = json.loads(Path(crf_args.folder.path, "test_predictions.jsonl").read_text("utf-8"))
    assert record["text"] == text
    assert len(record["tags"]) == len(record["tokens"])


def test_cluener_gets_its_submission_file(crf_args: Run, corpus_dir: Path) -> None:
    texts = ["浙商银行企业信贷部", "叶老桂"]
    lines = [json.dumps({"id": number, "text": text}) for number, text in enumerate(texts)]
    predict_lines(replace(crf_args, task_name="cluener"), _with_cluener(corpus_dir), "test.json", "\n".join(lines))
    path = Path(crf_args.folder.path, "cluener_predict.json")
    submitted = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [record["id"] for record in submitted] == [0, 1]
    for record, text in zip(submitted, texts, strict=True):
        for surfaces in record["label"].values():
            for surface, places in surfaces.items():
                assert all(text[start : last + 1] == surface for start, last in places)


def test_cluener_counts_characters_where_words_are_longer(crf_args: Run, corpus_dir: Path) -> None:
    text = "  anna met dan lee near new york, said bob and carol"
    args = replace(crf_args, task_name="cluener", word_unit="word")
    (record,) = predict_lines(args, _with_cluener(corpus_dir), "test.json", json.dumps({"id": 0, "text": text}))
    (submitted,) = Path(args.folder.path, "cluener_predict.json").read_text("utf-8").splitlines()
    places = {
        (name, surface, start, last + 1)
        for name, surfaces in json.loads(submitted)["label"].items()
        for surface, found in surfaces.items()
        for start, last in found
    }
    keys = ("type", "text", "start", "end")
    assert places == {tuple(one[key] for key in keys) for one in record["entities"]}
    assert places


def _with_cluener(corpus_dir: Path) -> Path:
    for split in ("train", "dev", "test"):
        (corpus_dir / f"{split}.txt").unlink()
    line = json.dumps({"text": "浙商银行", "label": {"company": {"浙商银行": [[0, 3]]}}}, ensure_ascii=False)
    for split in ("train", "dev"):
        (corpus_dir / f"{split}.json").write_text(line + "\n", "utf-8")
    return corpus_dir


def test_a_prefix_is_a_folder_below(crf_args: Run) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    predict(crf_args, model, tokenizer, "checkpoint-8")
    assert {path.name for path in Path(crf_args.folder.path, "checkpoint-8").iterdir()} == {
        "test_dial.json",
        "test_documents.jsonl",
        "test_predictions.jsonl",
        "test_results.json",
        "test_results.txt",
    }


def predict_with_a_new_model(args: Run) -> dict[str, Any]:
    return predict(*prepared(args))


def test_all_ranks_know_the_scores_and_one_writes(crf_args: Run) -> None:
    first, second = on_ranks(2, predict_with_a_new_model, crf_args)
    assert first == second
    assert first["support"] > 0
    assert len(read_predictions(crf_args.folder.path)) == 20


def test_the_log_says_where_the_predictions_are(crf_args: Run, caplog: pytest.LogCaptureFixture) -> None:
    crf_args, model, tokenizer = prepared(crf_args)
    with caplog.at_level(logging.INFO):
        predict(crf_args, model, tokenizer)
    assert any("20 texts" in message and "test_predictions.jsonl" in message for message in caplog.messages)
