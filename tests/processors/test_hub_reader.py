"""Hugging Face data sets from a local folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from processors.corpus import Corpus
from processors.examples import DataError, Example
from processors.hub_reader import open_hub_split, read_hub_split

CLASSES = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER", "B-work-of-art", "I-work-of-art"]))
STRINGS = datasets.Sequence(datasets.Value("string"))
WORDS = [["Anna", "paints"], ["Mona", "Lisa"]]


@pytest.fixture(autouse=True)
def no_progress_bars() -> None:
    datasets.disable_progress_bars()


def saved(folder: Path, feature: Any = CLASSES, tag_column: str = "ner_tags", **splits: list[Any]) -> str:
    """A data set on disk, with these tags a split."""
    features = datasets.Features({"tokens": STRINGS, tag_column: feature})
    contents = {
        name: datasets.Dataset.from_dict({"tokens": WORDS[: len(tags)], tag_column: tags}, features=features)
        for name, tags in splits.items()
    }
    datasets.DatasetDict(contents).save_to_disk(str(folder))
    return str(folder)


def read(name: str, split: str, labelled: bool = True) -> list[Example]:
    return list(read_hub_split(open_hub_split(name, split), name, split, labelled))


def test_class_numbers_become_tags(tmp_path: Path) -> None:
    first, second = read(saved(tmp_path, train=[[1, 0], [2, 3]]), "train")
    assert (first.guid, first.words, first.labels) == ("train-0", ["Anna", "paints"], ["B-PER", "O"])
    assert (second.guid, second.words, second.labels) == (
        "train-1",
        ["Mona", "Lisa"],
        ["B-work-of-art", "I-work-of-art"],
    )


@pytest.mark.parametrize("tag_column", ["ner_tags", "tags", "labels"])
def test_tags_may_be_strings_under_several_names(tmp_path: Path, tag_column: str) -> None:
    (example,) = read(saved(tmp_path, STRINGS, tag_column, train=[["B-PER", "O"]]), "train")
    assert example.labels == ["B-PER", "O"]


@pytest.mark.parametrize("alias", ["validation", "dev", "valid"])
def test_the_dev_split_has_several_names(tmp_path: Path, alias: str) -> None:
    name = saved(tmp_path, CLASSES, "ner_tags", **{"train": [[0, 0]], alias: [[1, 0]]})
    assert read(name, "dev")[0].labels == ["B-PER", "O"]
    assert open_hub_split(name, "test") is None


def test_a_test_split_may_lack_tags(tmp_path: Path) -> None:
    name = saved(tmp_path, STRINGS, "other", test=[["x"]])
    assert [example.labels for example in read(name, "test", labelled=False)] == [None]


def test_a_training_split_without_tags_is_refused(tmp_path: Path, at: Callable[..., str]) -> None:
    name = saved(tmp_path, STRINGS, "other", train=[["x"]])
    with pytest.raises(DataError, match=at(name, None, "tokens, other in split train", "expected", "ner_tags")):
        read(name, "train")


def test_a_split_without_words_is_refused(at: Callable[..., str]) -> None:
    dataset = datasets.Dataset.from_dict({"sentence": ["a"], "tags": [["O"]]})
    with pytest.raises(DataError, match=at("mine", None, "sentence, tags", "expected a column tokens/words")):
        list(read_hub_split(dataset, "mine", "train"))


def test_a_missing_class_number_is_no_tag(tmp_path: Path) -> None:
    name = saved(tmp_path, train=[[1, 0]], test=[[-1, -1]])
    assert [example.labels for example in read(name, "test", labelled=False)] == [None]


def test_a_missing_class_number_in_training_is_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, train=[[1, 0], [-1, 0]])
    with pytest.raises(DataError, match="train"):
        read(name, "train")


@pytest.mark.parametrize(
    ("feature", "tags", "found"),
    [
        (STRINGS, ["B-PER", "PER"], "'PER'"),
        (STRINGS, ["B-PER"], "2 tokens but 1"),
        (datasets.Sequence(datasets.Value("int64")), [1, 0], "tags"),
    ],
    ids=["no tag", "too few", "plain numbers"],
)
def test_bad_tags_are_refused_with_their_place(tmp_path: Path, feature: Any, tags: list[Any], found: str) -> None:
    name = saved(tmp_path, feature, train=[tags])
    with pytest.raises(DataError, match=found) as caught:
        read(name, "train")
    assert str(caught.value).startswith(name)


@pytest.fixture
def three_tags() -> datasets.Dataset:
    """A word with a tag of each kind; a second row has none."""
    tags = {"pos_tags": [["NN"], None], "chunk_tags": [["B-NP"], None], "ner_tags": [["B-PER"], None]}
    return datasets.Dataset.from_dict({"tokens": [["Anna"], ["Bob"]], **tags})


@pytest.mark.parametrize(
    ("tag_column", "tag"), [("last", "B-PER"), ("ner", "B-PER"), ("chunk", "B-NP"), ("chunk_tags", "B-NP")]
)
def test_the_tag_column_is_named(three_tags: datasets.Dataset, tag_column: str, tag: str) -> None:
    first = next(read_hub_split(three_tags, "mine", "train", tag_column=tag_column))
    assert first.labels == [tag]


def test_a_tag_column_that_is_not_there_is_refused(three_tags: datasets.Dataset, at: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=at("mine", None, "pos_tags, chunk_tags", "nonsense/nonsense_tags")):
        list(read_hub_split(three_tags, "mine", "train", tag_column="nonsense"))


def test_plain_classes_are_entities_of_one_word(three_tags: datasets.Dataset) -> None:
    first = next(read_hub_split(three_tags, "mine", "train", tag_column="pos", plain_tags=True))
    assert first.labels == ["S-NN"]


def test_null_is_no_tag(three_tags: datasets.Dataset, at: Callable[..., str]) -> None:
    assert [one.labels for one in read_hub_split(three_tags, "mine", "test", labelled=False)] == [["B-PER"], None]
    with pytest.raises(DataError, match=at("mine (train)", 1, "null")):
        list(read_hub_split(three_tags, "mine", "train"))


def test_a_null_among_tags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class None is none of the 4 tags"):
        read(saved(tmp_path, train=[[1, None]]), "train")


def test_a_corpus_can_be_a_data_set(tmp_path: Path) -> None:
    name = saved(tmp_path / "data", train=[[1, 0], [2, 3]], validation=[[0, 0]])
    corpus = Corpus("mine", tmp_path, dataset_name=name, cache_dir=tmp_path / "cache")
    inventory = corpus.inventory("train")
    assert (inventory.sentences, inventory.words, inventory.entities) == (2, 4, 2)
    assert corpus.entity_types() == ["PER", "work-of-art"]
    assert corpus.has("dev")
    assert not corpus.has("test")
    assert corpus.digest("train") == Corpus("mine", tmp_path, dataset_name=name).digest("train")
    assert corpus.digest("train") != corpus.digest("dev")


def test_a_split_that_the_data_set_lacks_is_named(tmp_path: Path, at: Callable[..., str]) -> None:
    name = saved(tmp_path / "data", train=[[1, 0]])
    with pytest.raises(DataError, match=at(name, None, "no test split")):
        Corpus("mine", tmp_path, dataset_name=name).examples("test")
