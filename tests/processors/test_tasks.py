"""Known tasks, and the files of any corpus found by their names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from processors.examples import DataError
from processors.tasks import SPLITS, TASKS, Task, find_split_file, missing_split_error, task_named


def folder_with(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "dev.txt", "test.txt"),
        ("train.char.bmes", "dev.char.bmes", "test.char.bmes"),
        ("eng.train", "eng.testa", "eng.testb"),
        ("train.json", "valid.json", "test.json"),
        ("Train.TXT", "VAL.tsv", "predict.jsonl"),
        ("train", "validation", "test"),
        ("wiki.training.conll", "wiki.validation.iob2", "wiki.test.ner"),
        ("train.tsv", "devel.tsv", "test.tsv"),
        ("train_data.txt", "dev_data.txt", "test_data.txt"),
        ("en_x-ud-train.conllu", "en_x-ud-dev.conllu", "en_x-ud-test.conllu"),
        ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
        ("germ.train.iob2", "germ.dev.iob2", "germ.test.iob2"),
        ("train.jsonlines", "dev.jsonlines", "test.jsonlines"),
        ("CMeEE_train.json", "CMeEE_dev.json", "CMeEE_test.json"),
        ("trainset.txt", "devset.txt", "testset.txt"),
        ("nerTrain.txt", "nerValid.txt", "nerTest.txt"),
        ("dev-corpus.train.txt", "dev-corpus.dev.txt", "dev-corpus.test.txt"),
    ],
)
def test_splits_are_found_by_the_parts_of_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder_with(tmp_path, *names)
    assert tuple(path.name for split in SPLITS if (path := find_split_file(tmp_path, split))) == names


@pytest.mark.parametrize(
    "name",
    [
        *("train.txt.gz", "train.txt~", "train.pdf", "train.py", ".train.txt", "retrain.txt", "trainer.txt"),
        *("labels.txt", "latest.txt", "contest.txt", "invalid.txt", "interval.txt", "train_dev.txt", "LICENSE"),
    ],
)
def test_other_files_are_no_split(tmp_path: Path, name: str) -> None:
    folder_with(tmp_path, name)
    assert [find_split_file(tmp_path, split) for split in SPLITS] == [None] * 3


def test_the_clearest_name_is_taken(tmp_path: Path) -> None:
    folder_with(tmp_path, "train.txt", "train_old.txt", "train2.txt", "test_predictions.txt", "test.txt", "devset.txt")
    assert [path.name for split in SPLITS if (path := find_split_file(tmp_path, split))] == [
        "train.txt",
        "devset.txt",
        "test.txt",
    ]


def test_a_folder_is_no_split(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert find_split_file(tmp_path, "train") is None


def test_several_candidates_are_refused(tmp_path: Path, at: Callable[..., str]) -> None:
    folder_with(tmp_path, "dev.txt", "valid.json", "train.txt")
    with pytest.raises(DataError, match=at(tmp_path, None, "the dev split: dev.txt, valid.json", "--dev_file")):
        find_split_file(tmp_path, "dev")


def test_a_missing_folder_is_refused(tmp_path: Path, at: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=at(tmp_path / "no", None, "no such data folder", "--data_dir")):
        find_split_file(tmp_path / "no", "train")


@pytest.mark.parametrize(("names", "found"), [(("a.csv", "b.pdf"), "found a.csv, b.pdf"), ((), "found nothing")])
def test_a_missing_split_is_reported_with_what_is_there(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    message = str(missing_split_error(folder_with(tmp_path, *names), "dev"))
    assert message.startswith(f"{tmp_path}: no file for the dev split")
    assert all(part in message for part in ("dev, devel,", "corpus_dev.conll", found, "--dev_file"))


def test_tasks_are_named_in_any_case_and_others_are_generic() -> None:
    assert task_named("CLUENER") is TASKS["cluener"]
    assert task_named("mine") == Task(types=(), word_unit="auto", submission=None)


def test_known_tasks_have_their_published_types() -> None:
    counts = {"cner": 8, "cluener": 10, "conll2003": 4, "chunk": 11, "pos": 47}
    assert {name: len(task.types) for name, task in TASKS.items()} == counts
