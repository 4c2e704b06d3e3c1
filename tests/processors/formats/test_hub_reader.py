"""Hugging Face data sets from a local folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from processors.corpus import Corpus
from processors.examples import DataError, Example
from processors.formats.hub import open_hub_split, read_hub_split
from processors.spans import Reading, TagReader
from tests.tags import iob2

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
    return list(read_hub_split(open_hub_split(name, split), name, Reading(split=split, labelled=labelled)))


def test_class_numbers_become_tags(tmp_path: Path) -> None:
    first, second = read(saved(tmp_path, train=[[1, 0], [2, 3]]), "train")
    assert (first.guid, first.words, iob2(first)) == ("train-0", ["Anna", "paints"], ["B-PER", "O"])
    assert (second.guid, second.words, iob2(second)) == (
        "train-1",
        ["Mona", "Lisa"],
        ["B-work-of-art", "I-work-of-art"],
    )


@pytest.mark.parametrize("tag_column", ["ner_tags", "tags", "labels"])
def test_tags_may_be_strings_under_several_names(tmp_path: Path, tag_column: str) -> None:
    (example,) = read(saved(tmp_path, STRINGS, tag_column, train=[["B-PER", "O"]]), "train")
    assert iob2(example) == ["B-PER", "O"]


@pytest.mark.parametrize("alias", ["validation", "dev", "valid"])
def test_the_dev_split_has_several_names(tmp_path: Path, alias: str) -> None:
    name = saved(tmp_path, CLASSES, "ner_tags", **{"train": [[0, 0]], alias: [[1, 0]]})
    assert iob2(read(name, "dev")[0]) == ["B-PER", "O"]
    assert open_hub_split(name, "test") is None


def test_labels_in_an_unknown_column_are_named(tmp_path: Path, at: Callable[..., str]) -> None:
    name = saved(tmp_path, STRINGS, "other", train=[["x", "y"]], test=[["x", "y"]])
    with pytest.raises(DataError, match=at(f"{name} (test)", 0, "other could be labels")):
        read(name, "test", labelled=False)
    with pytest.raises(DataError, match=at(f"{name} (train)", 0, "no labels (keys: tokens, other)", "ner_tags")):
        read(name, "train")


def test_a_test_split_may_lack_tags(tmp_path: Path) -> None:
    name = saved(tmp_path, STRINGS, "pos_tags", test=[["x", "y"]])
    assert [iob2(example) for example in read(name, "test", labelled=False)] == [None]


def test_a_split_without_words_is_refused(at: Callable[..., str]) -> None:
    dataset = datasets.Dataset.from_dict({"content": ["a"], "tags": [["O"]]})
    with pytest.raises(DataError, match=at("mine", None, "content, tags in split train", "expected tokens and")):
        list(read_hub_split(dataset, "mine", Reading()))


def test_a_missing_class_number_is_no_tag(tmp_path: Path) -> None:
    name = saved(tmp_path, train=[[1, 0]], test=[[-1, -1]])
    assert [iob2(example) for example in read(name, "test", labelled=False)] == [None]


def test_a_missing_class_number_in_training_is_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, train=[[1, 0], [-1, 0]])
    with pytest.raises(DataError, match="train"):
        read(name, "train")


@pytest.mark.parametrize(
    ("feature", "tags", "found"),
    [
        (STRINGS, ["B-PER", "PER"], "'PER'"),
        (STRINGS, ["B-PER"], "2 tokens but 1"),
        (datasets.Sequence(datasets.Value("int64")), [1, 0], "numbers of classes without their names; .*--labels FILE"),
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
    first = next(read_hub_split(three_tags, "mine", Reading(tag_column=tag_column)))
    assert iob2(first) == [tag]


def test_a_tag_column_that_is_not_there_is_refused(three_tags: datasets.Dataset) -> None:
    with pytest.raises(DataError, match=r"(?s)2 faults:\n  mine \(train\):0: .*chunk_tags.*nonsense/nonsense_tags"):
        list(read_hub_split(three_tags, "mine", Reading(tag_column="nonsense")))


def test_plain_classes_are_entities_of_one_word(three_tags: datasets.Dataset) -> None:
    first = next(read_hub_split(three_tags, "mine", Reading(tag_column="pos", tags=TagReader(plain=True))))
    assert first.entities == [("NN", 0, 0)]


def test_null_is_no_tag(three_tags: datasets.Dataset, at: Callable[..., str]) -> None:
    assert [iob2(one) for one in read_hub_split(three_tags, "mine", Reading(labelled=False))] == [["B-PER"], None]
    with pytest.raises(DataError, match=at("mine (train)", 1, "no labels")):
        list(read_hub_split(three_tags, "mine", Reading()))


def test_a_null_among_tags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="None is among them"):
        read(saved(tmp_path, train=[[1, None]]), "train")


def test_a_corpus_can_be_a_data_set(tmp_path: Path) -> None:
    name = saved(tmp_path / "data", train=[[1, 0], [2, 3]], validation=[[0, 0]])
    corpus = Corpus("mine", tmp_path, dataset_name=name, cache_dir=tmp_path / "cache")
    inventory = corpus.inventory("train")
    assert (inventory.sentences, inventory.words, inventory.entities) == (2, 4, 2)
    assert corpus.entity_types() == ["PER", "work-of-art"]
    assert corpus.has("dev")
    assert not corpus.has("test")
    elsewhere = Corpus("mine", tmp_path, dataset_name=name, cache_dir=tmp_path / "elsewhere")
    assert corpus.digest("train") == elsewhere.digest("train")
    assert corpus.digest("train") != corpus.digest("dev")


def test_a_split_that_the_data_set_lacks_is_named(tmp_path: Path, at: Callable[..., str]) -> None:
    name = saved(tmp_path / "data", train=[[1, 0]])
    with pytest.raises(DataError, match=at(name, None, "no test split")):
        Corpus("mine", tmp_path, dataset_name=name).examples("test")


SPANS = [{"start": 0, "end": 4, "label": "PER"}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "tokens and tags": [{"tokens": ["Anna", "left"], "ner_tags": ["B-PER", "O"]}],
    "text and entities": [{"text": "Anna left", "entities": SPANS}],
    "text and spans": [{"text": "Anna left", "spans": [{"start_offset": 0, "end_offset": 4, "type": "PER"}]}],
    "a table of structs": [{"text": "Anna left", "entities": {"start": [0], "end": [4], "label": ["PER"]}}],
    "token spans": [{"tokens": ["Anna", "left"], "entity_mentions": [{"start": 0, "end": 1, "entity_type": "PER"}]}],
}


@pytest.mark.parametrize("suffix", ["json", "parquet", "csv"])
@pytest.mark.parametrize("shape", ROWS)
def test_files_of_a_folder_are_splits_whatever_their_columns(tmp_path: Path, suffix: str, shape: str) -> None:
    rows = ROWS[shape]
    table = {key: [str(row[key]) if suffix == "csv" else row[key] for row in rows] for key in rows[0]}
    getattr(datasets.Dataset.from_dict(table), f"to_{suffix}")(str(tmp_path / f"validation.{suffix}"))
    reader = Reading(split="dev")
    dataset = open_hub_split(str(tmp_path), "dev", str(tmp_path / "cache"))
    (example,) = read_hub_split(dataset, "mine", reader)
    assert (example.guid, example.words, iob2(example)) == ("dev-0", ["Anna", "left"], ["B-PER", "O"])
    lists = sum(isinstance(value, list | dict) for value in rows[0].values())
    assert reader.findings.counts == (
        {"lists and objects written as strings, parsed": lists} if suffix == "csv" else {}
    )
    single = open_hub_split(str(tmp_path / f"validation.{suffix}"), "train", str(tmp_path / "cache"))
    assert single is not None
    assert len(single) == 1


def test_lists_that_csv_cannot_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("tokens,ner_tags\n\"['Anna' 'left']\",\"['B-PER' 'O']\"\nAnna left,B-PER O\n")
    with pytest.raises(DataError, match=r"(?s)2 faults:.*tokens is not a list of strings.*tokens is not a list"):
        read(str(tmp_path), "train")


def test_class_labels_within_structs_have_their_names() -> None:
    label = datasets.ClassLabel(names=["PER", "LOC"])
    entity = {"start": datasets.Value("int32"), "end": datasets.Value("int32"), "label": label}
    features = datasets.Features({"text": datasets.Value("string"), "entities": datasets.List(entity)})
    rows = {"text": ["Anna left", "no"], "entities": [[{"start": 0, "end": 4, "label": 0}], None]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    first, second = read_hub_split(dataset, "mine", Reading(labelled=False))
    assert (iob2(first), iob2(second)) == (["B-PER", "O"], None)


def test_a_data_set_of_one_split_is_opened(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(ROWS["tokens and tags"])
    dataset.save_to_disk(str(tmp_path / "one"))
    assert iob2(read(str(tmp_path / "one"), "train")[0]) == ["B-PER", "O"]
    assert open_hub_split(str(tmp_path / "one"), "test") is None


def test_numbers_without_names_have_those_of_the_label_file(tmp_path: Path) -> None:
    name = saved(tmp_path / "data", datasets.Sequence(datasets.Value("int64")), train=[[1, 0]])
    (tmp_path / "tags.txt").write_text("O\nB-PER\n")
    corpus = Corpus("", dataset_name=name, labels_file=tmp_path / "tags.txt")
    assert iob2(next(corpus.examples("train"))) == ["B-PER", "O"]


def test_what_cannot_be_opened_is_refused_with_its_remedy(tmp_path: Path) -> None:
    script = tmp_path / "mine"
    script.mkdir()
    (script / "mine.py").write_text("import datasets\n")
    with pytest.raises(DataError, match=r"scripts are no longer supported.*save_to_disk"):
        open_hub_split(str(script / "mine.py"), "train")
    several = tmp_path / "several"
    for config in ("de", "en"):
        (several / config).mkdir(parents=True)
        (several / config / "train.jsonl").write_text('{"tokens": ["a"], "ner_tags": ["O"]}\n')
    configs = "".join(f"- config_name: {one}\n  data_files: {one}/*.jsonl\n" for one in ("de", "en"))
    (several / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(DataError, match=r"(?s)\['de', 'en'\].*several:CONFIG"):
        open_hub_split(str(several), "train", str(tmp_path / "cache"))
    chosen = open_hub_split(f"{several}:de", "train", str(tmp_path / "cache"))
    assert chosen is not None
    with pytest.raises(DataError, match="cannot be opened"):
        open_hub_split(str(tmp_path / "nowhere"), "train")
