"""Runs on corpora that are annotated in part: what is learnt, what is scored, and what is said."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from common.entities import Annotation, Entity
from processors.corpus import Corpus
from processors.examples import Example
from processors.formats.writers import FORMATS
from tests.helpers import write_corpus
from tests.tools.runs import call_script, crf, options_of_run, prepared, read_json, replace
from tools.data import load_and_cache_examples
from tools.decoding import TaggedDocument
from tools.evaluate import judged, score_tagged
from tools.run import Run


def only(example: Example, types: set[str], is_told: bool) -> Example:
    """The example as annotators of these types would have left it."""
    entities = [one for one in example.entities or () if one.type in types]
    return Example(example.guid, example.words, entities, complete=frozenset(types) if is_told else None)


def write_halves(folder: Path, is_told: bool) -> Path:
    """A corpus whose train texts are annotated either with persons only or with the other types only."""
    corpus = Corpus("tiny", write_corpus(folder / "whole", {"train": 120, "dev": 20, "test": 20}))
    home = folder / "halves"
    home.mkdir()
    halves = [
        only(example, {"PER"} if number % 2 else {"LOC", "ORG"}, is_told)
        for number, example in enumerate(corpus.examples("train"))
    ]
    for split, examples in {"train": halves, "dev": corpus.examples("dev"), "test": corpus.examples("test")}.items():
        FORMATS["jsonl"].write(examples, home / f"{split}.jsonl")
    return home


@pytest.mark.parametrize("script", ["run_ner_crf", "run_ner_softmax"])
def test_types_that_are_missing_in_a_half_are_learnt_from_the_other(script: str, encoder: Path, tmp_path: Path) -> None:
    found = {}
    for is_told in (True, False):
        home = tmp_path / str(is_told)
        options = options_of_run(encoder, write_halves(home, is_told), home)
        call_script(script, **options, do_train=True, from_scratch=True, do_eval=True, num_train_epochs=6, save_steps=0)
        found[is_told] = read_json(home / "run" / "eval_results.json")["f1"]
    assert found[True] > 0.95 > found[False] + 0.1


TEXTS: list[dict[str, Any]] = [
    {"tokens": ["anna", "saw", "it", "paris"], "tags": ["B-PER", "O", "?", "O"], "complete": ["PER"]},
    {"tokens": ["bob", "saw", "rome"], "tags": ["B-PER", "O", "B-LOC"]},
]


@pytest.fixture
def partial_args(crf_args: Run, tmp_path: Path) -> Run:
    """A run whose dev split is annotated in part."""
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    return replace(crf_args, dev_file=str(path))


def test_only_what_is_annotated_is_scored(partial_args: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run, _, tokenizer = prepared(partial_args)
    dataset = load_and_cache_examples(run, run.corpus.task_name, tokenizer, "dev")
    assert "dev: 1 of 7 words are not annotated" in caplog.text
    assert "dev: 1 of 2 sentences are annotated for some types only (PER in 1)" in caplog.text
    assert dataset.annotation(0) == Annotation(4, [Entity("PER", 0, 0)], [(2, 2)], frozenset({"PER"}))
    assert dataset.annotation(1) == Annotation(3, [Entity("PER", 0, 0), Entity("LOC", 2, 2)], [])
    first = [Entity("PER", 0, 0), Entity("PER", 1, 1), Entity("PER", 2, 2), Entity("LOC", 3, 3)]
    second = [Entity("LOC", 1, 1), Entity("LOC", 2, 2)]
    tagged = [
        TaggedDocument(0, ["S-PER", "S-PER", "S-PER", "S-LOC"], first, [0.9, 0.8, 0.7, 0.6], 1.0),
        TaggedDocument(1, ["O", "S-LOC", "S-LOC"], second, [0.5, 0.4], 1.0),
    ]
    scores = score_tagged(tagged, dataset, "bios")
    assert (scores.entities.micro.support, scores.entities.micro.precision) == (3, 2 / 4)
    assert scores.entities.micro.recall == 2 / 3
    assert scores.entities.accuracy == 3 / 6  # the word that is not annotated does not count
    assert scores.loss == 2 / 6
    assert scores.as_dict()["annotated"] == {"LOC": 3 / 7, "PER": 6 / 7}
    kept = judged(tagged[0], dataset.annotation(0))
    assert (kept.entities, kept.confidences) == (first[:2], [0.9, 0.8])
    assert kept.tags == ["S-PER", "S-PER", "O", "O"]
    assert judged(tagged[1], dataset.annotation(1)) is tagged[1]


def test_complete_types_of_a_corpus_and_names_that_are_none(crf_args: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run, model, tokenizer = prepared(replace(crf_args, complete_types="PER, PRS"))
    dataset = load_and_cache_examples(run, run.corpus.task_name, tokenizer, "train")
    assert "train: PRS is said to be annotated completely, but is none of the types LOC, ORG, PER" in caplog.text
    assert dataset.annotation(0).complete == frozenset({"PER", "PRS"})
    assert dataset.collate([dataset[0]])["labels"].dim() == 3
    with pytest.raises(ValueError, match="--class_weights: the CRF weights the words of known tags"):
        prepared(crf(**{**crf_args.settings.flat(), "complete_types": "PER", "class_weights": "PER=2"}))
    assert model.encode([Annotation(1, [])]).dim() == 2


def test_windows_know_what_is_annotated(partial_args: Run) -> None:
    run, _, tokenizer = prepared(replace(partial_args, eval_max_seq_length=4, window_overlap=0))
    dataset = load_and_cache_examples(run, run.corpus.task_name, tokenizer, "dev")
    own = [window.annotation for window in dataset if window.document == 0]
    assert [one.words for one in own] == [2, 2]
    assert [one.unannotated for one in own] == [[], [(0, 0)]]
    assert [one.complete for one in own] == [frozenset({"PER"})] * 2
