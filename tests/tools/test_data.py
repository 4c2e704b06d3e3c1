"""From arguments to features."""

import dataclasses
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import processors.corpus
import processors.features.cache
import tools.data
from common.tag_schemes import MARKUPS, TagEncoder
from processors.examples import DataError, Example
from processors.features.build import build_feature_arrays
from processors.features.dataset import FeatureArrays, FeatureDataset
from tests.tools.runs import replace
from tools.data import check_splits, load_and_cache_examples
from tools.run import Run


@pytest.fixture
def tokenizer(encoder: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(encoder)
    return found


@pytest.fixture
def load(crf_args: Run, tokenizer: PreTrainedTokenizerBase) -> Callable[..., FeatureDataset]:
    """Loads a split under changed arguments."""

    def load(split: str = "train", **changes: object) -> FeatureDataset:
        args = replace(crf_args, train_max_seq_length=32, eval_max_seq_length=64, **changes)
        return load_and_cache_examples(args, args.corpus.task_name, tokenizer, split)

    return load


Load = Callable[..., FeatureDataset]


@pytest.mark.parametrize(("split", "sentences"), [("train", 60), ("dev", 20), ("test", 20)])
def test_a_split_has_all_its_sentences_and_words(load: Load, corpus_dir: Path, split: str, sentences: int) -> None:
    dataset = load(split)
    assert dataset.num_documents == sentences
    assert dataset.num_words == sum(map(bool, (corpus_dir / f"{split}.txt").read_text("utf-8").splitlines()))


def test_training_and_evaluation_have_their_own_window_lengths(load: Load, corpus_dir: Path) -> None:
    for split in ("train", "dev"):
        sentences = (corpus_dir / f"{split}.txt").read_text("utf-8").strip().split("\n\n")
        (corpus_dir / f"{split}.txt").write_text("\n".join(sentences), "utf-8")
    assert 24 < load("train").lengths.max() <= 32
    assert 56 < load("dev").lengths.max() <= 64


def test_an_overlap_of_a_quarter_is_the_default(load: Load, corpus_dir: Path) -> None:
    path = corpus_dir / "train.txt"
    path.write_text("\n".join(path.read_text("utf-8").split("\n\n")), "utf-8")
    assert len(load("train", window_overlap=0)) < len(load("train")) < len(load("train", window_overlap=15))
    assert len(load("train")) == len(load("train", window_overlap=30 // 4))


def test_the_model_encodes_the_labels(crf_args: Run, tokenizer: PreTrainedTokenizerBase) -> None:
    own = load_and_cache_examples(crf_args, "tiny", tokenizer, "dev")
    turned_labels = ("O", *(f"{p}-{t}" for t in ("PER", "ORG", "LOC") for p in "SIB"))
    encode = TagEncoder(turned_labels, MARKUPS["bios"])
    turned = load_and_cache_examples(dataclasses.replace(crf_args, encode=encode), "tiny", tokenizer, "dev")
    names = crf_args.corpus.label_list("bios")
    own_ids, turned_ids = (one.collate([one[0]])["labels"][0].tolist() for one in (own, turned))
    assert [names[label] for label in own_ids] == [turned_labels[label] for label in turned_ids]
    assert own_ids != turned_ids


def test_features_are_built_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load()
    built: list[int] = []

    def counted(examples: Sequence[Example], *how: Any) -> FeatureArrays:
        built.append(len(examples))
        return build_feature_arrays(examples, *how)

    monkeypatch.setattr(processors.features.cache, "build_feature_arrays", counted)
    second = load()
    assert not built
    assert (first.arrays["input_ids"] == second.arrays["input_ids"]).all()
    load(overwrite_cache=True)
    assert built == [60]


@pytest.mark.parametrize(("split", "count"), [("train", 60), ("dev", 20), ("test", 20)])
def test_files_can_be_named_outright(load: Load, corpus_dir: Path, tmp_path: Path, split: str, count: int) -> None:
    elsewhere = tmp_path / "elsewhere.data"
    (corpus_dir / f"{split}.txt").rename(elsewhere)
    flag = {"train": "train_file", "dev": "dev_file", "test": "test_file"}[split]
    assert load(split, **{flag: str(elsewhere)}).num_documents == count
    with pytest.raises(DataError, match=f"no file for the {split} split"):
        load(split)


def test_a_run_reports_a_split_once(
    crf_args: Run, tokenizer: PreTrainedTokenizerBase, corpus_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = replace(crf_args, train_max_seq_length=32)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            load_and_cache_examples(run, "tiny", tokenizer, "train")
    reports = [message for message in caplog.messages if message.startswith("train: 60 sentences")]
    assert len(reports) == 1
    assert f"(IOB2) in {corpus_dir / 'train.txt'};" in reports[0]
    assert "60 windows of at most 32 tokens, 0 words lost" in reports[0]


def test_illegal_tags_are_counted_with_their_place(
    load: Load, corpus_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (corpus_dir / "dev.txt").open("a") as file:
        file.write("\nhe O\nmet O\nbob I-PER\n")
    lines = len((corpus_dir / "dev.txt").read_text("utf-8").splitlines())
    with caplog.at_level(logging.WARNING):
        load("dev")
    assert any(
        f"dev: 1 tag transitions are illegal in IOB2, the first at {corpus_dir / 'dev.txt'}:{lines}" in m
        for m in caplog.messages
    )


def test_entities_that_cut_words_are_counted_and_listed_with_their_place(
    load: Load, corpus_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = corpus_dir / "dev.jsonl"
    (corpus_dir / "dev.txt").unlink()
    path.write_text('{"text": "anna met bob", "label": [[0, 3, "PER"]]}\n' * 15)
    with caplog.at_level(logging.DEBUG, logger="tools"):
        assert load("dev").annotation(0).entities == [("PER", 0, 0)]
    shown = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert shown[0] == "dev: 15 entities whose edges cut words, widened to whole words (--span_edges snap)"
    remark = "dev-0: PER 'ann' [0, 3) cuts 'anna', taken as 'anna' [0, 4)"
    assert shown[1] == f"dev: {path}:1: {remark}"
    assert [f"{path}:{line}: " in message for line, message in enumerate(shown[1:11], start=1)] == [True] * 10
    assert shown[11:] == ["dev: 5 more in the log file"]
    assert sum(" cuts " in message for message in caplog.messages) == 15


def test_findings_are_kept_with_the_counts(
    load: Load, corpus_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (corpus_dir / "dev.txt").unlink()
    (corpus_dir / "dev.jsonl").write_text('{"text": "anna met bob", "label": [[0, 3, "PER"]]}\n')
    load("dev")
    moved = (corpus_dir / "dev.jsonl").rename(corpus_dir / "valid.jsonl")
    monkeypatch.setattr(processors.corpus.Corpus, "_read", None)
    caplog.clear()
    load("dev")
    assert any(message.startswith(f"dev: {moved}:1: dev-0: PER 'ann'") for message in caplog.messages)


def test_entities_that_cut_words_may_be_left_out_or_refused(load: Load, corpus_dir: Path) -> None:
    (corpus_dir / "dev.txt").unlink()
    (corpus_dir / "dev.jsonl").write_text('{"text": "anna met bob", "label": [[0, 3, "PER"], [9, 12, "PER"]]}\n')
    assert load("dev", span_edges="snap").annotation(0).entities == [("PER", 0, 0), ("PER", 2, 2)]
    assert load("dev", span_edges="drop").annotation(0).entities == [("PER", 2, 2)]
    with pytest.raises(DataError, match=r"dev\.jsonl:1: dev-0: PER 'ann'"):
        load("dev", span_edges="error")


def test_offsets_are_read_as_the_flag_says(load: Load, corpus_dir: Path) -> None:
    (corpus_dir / "dev.txt").unlink()
    (corpus_dir / "dev.jsonl").write_text('{"text": "😀 anna met", "label": [[3, 7, "PER"]]}\n', "utf-8")
    assert load("dev", offset_unit="utf16", span_edges="error").annotation(0).entities == [("PER", 1, 1)]


def test_a_type_without_an_example_in_train_is_a_warning(
    load: Load, corpus_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (corpus_dir / "dev.txt").open("a") as file:
        file.write("\nflu B-ILL\n")
    with caplog.at_level(logging.WARNING):
        load("dev")
    assert any(
        "1 entities of type ILL" in message and "do not occur in train" in message for message in caplog.messages
    )


def test_a_type_that_is_no_label_is_an_error_with_its_line(load: Load, corpus_dir: Path) -> None:
    (corpus_dir / "labels.txt").write_text("PER\nLOC\n", "utf-8")
    line = 1 + next(
        number
        for number, text in enumerate((corpus_dir / "train.txt").read_text("utf-8").splitlines())
        if text.endswith("-ORG")
    )
    with pytest.raises(DataError, match=rf"train\.txt:{line}: entity type 'ORG' is not among the labels \(PER, LOC\)"):
        load("train")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.jsonl", '{"tokens": [], "tags": []}\n', "no entities in 0 words; check the format"),
        ("train.txt", "anna O\nmet O\n", "no entities in 2 words; check the format .* and --tag_column"),
        ("train.txt", "# id 1 x\nanna O\n", "no entities in 1 words; 1 comment lines, left out; check"),
    ],
)
def test_training_without_an_entity_is_an_error(
    load: Load, crf_args: Run, corpus_dir: Path, name: str, content: str, said: str
) -> None:
    (corpus_dir / "train.txt").unlink()
    (corpus_dir / name).write_text(content, "utf-8")
    for attempt in (lambda: load("train"), lambda: check_splits(replace(crf_args, do_train=True))):
        with pytest.raises(DataError, match=rf"{name}: {said}"):
            attempt()


def test_scoring_without_an_entity_is_a_warning_where_there_are_labels(
    load: Load, corpus_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (corpus_dir / "dev.txt").write_text("anna O\nmet O\n", "utf-8")
    (corpus_dir / "test.txt").write_text("anna\nmet\n", "utf-8")
    with caplog.at_level(logging.WARNING):
        load("dev")
        load("test")
    said = [message for message in caplog.messages if "has no entities" in message]
    assert said == [
        "dev: this labelled split has no entities, so scores are meaningless; check its format and --tag_column"
    ]


def test_all_missing_splits_are_named_at_once(crf_args: Run, corpus_dir: Path) -> None:
    for split in ("dev", "test"):
        (corpus_dir / f"{split}.txt").unlink()
    wanted = replace(crf_args, do_train=True, do_eval=True, do_predict=True, test_file="no.txt")
    with pytest.raises(DataError, match=r"(?s)\A2 faults:.*no file for the dev split.*no\.txt: there is no such file"):
        check_splits(wanted)


def test_sentences_that_stand_in_train_are_counted(
    load: Load, corpus_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third, *_ = (corpus_dir / "train.txt").read_text("utf-8").strip().split("\n\n")
    for split, added in (("train", [first, second]), ("dev", [second, third, second])):
        path = corpus_dir / f"{split}.txt"
        path.write_text("\n\n".join([path.read_text("utf-8").strip(), *added]), "utf-8")
    with caplog.at_level(logging.INFO):
        load("train")
        load("dev")
    said = {
        one.getMessage(): one.levelno for one in caplog.records if re.search("duplicate|in train", one.getMessage())
    }
    repeated = next(message for message in said if message.startswith("train:"))
    known = next(message for message in said if message.startswith("dev:"))
    assert int(repeated.split()[1]) >= 2
    assert int(known.split()[1]) >= 3
    assert said == {repeated: logging.INFO, known: logging.WARNING}


def test_without_train_there_is_no_overlap(load: Load, corpus_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    (corpus_dir / "train.txt").unlink()
    with caplog.at_level(logging.INFO):
        load("dev")
    assert not any("in train" in message for message in caplog.messages)


def test_other_ranks_report_nothing(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tools.data, "is_main", lambda: False)
    with caplog.at_level(logging.INFO):
        load()
    assert not caplog.messages
