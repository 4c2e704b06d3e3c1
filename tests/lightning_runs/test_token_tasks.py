"""Names, chunks and parts of speech as classes of tasks."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from lightning_runs.token_tasks import NER, POS, Chunk, TokenClassificationTask
from processors.examples import DataError

COLUMNS = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\n\nPeter NNP B-NP B-PER\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "eng.train").write_text(COLUMNS, "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("task", "tags"),
    [
        (NER(), [["I-ORG", "O", "I-MISC"], ["B-PER"]]),
        (Chunk(), [["I-NP", "I-VP", "I-NP"], ["B-NP"]]),
        (POS(), [["S-NNP", "S-VBZ", "S-JJ"], ["S-NNP"]]),
    ],
)
def test_each_task_reads_its_column(task: TokenClassificationTask, tags: list[list[str]], folder: Path) -> None:
    examples = task.read_examples_from_file(folder, "train")
    assert [example.words for example in examples] == [["EU", "rejects", "German"], ["Peter"]]
    assert [example.labels for example in examples] == tags


def test_default_labels_are_those_of_conll_2003() -> None:
    assert set(NER().get_labels()) == {
        "O",
        *(f"{prefix}-{name}" for prefix in "BI" for name in ("PER", "LOC", "ORG", "MISC")),
    }
    assert len(Chunk().get_labels()) == 23
    assert len(POS().get_labels()) == 48
    assert {"O", "B-NN|SYM", "B-PRP$"} < set(POS().get_labels())
    assert "S-NN" in POS().get_labels(markup="bios")


def test_a_label_file_lists_tags_or_types(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("O\nB-A\nI-A\n", "utf-8")
    assert NER().get_labels(labels) == ["O", "B-A", "I-A"]
    labels.write_text("NN\nVB\n", "utf-8")
    assert POS().get_labels(labels) == ["O", "B-NN", "B-VB"]


def test_examples_become_features(folder: Path, bert: PreTrainedTokenizerBase) -> None:
    task = POS()
    examples, labels = task.read_examples_from_file(folder, "train"), task.get_labels()
    features = task.convert_examples_to_features(examples, labels, 32, bert)
    names = [[labels[label] for label in features.gold_label_ids(index)] for index in range(2)]
    assert names == [["B-NNP", "B-VBZ", "B-JJ"], ["B-NNP"]]


def test_a_missing_split_says_what_was_looked_for(folder: Path) -> None:
    with pytest.raises(DataError, match="no file for the dev split"):
        NER().read_examples_from_file(folder, "dev")


@pytest.mark.corpora
@pytest.mark.parametrize("task", [NER(), Chunk(), POS()])
def test_conll_2003_has_no_tag_but_the_default_labels(task: TokenClassificationTask, data_root: Path) -> None:
    from common.tag_schemes import split_tag

    known = {split_tag(tag)[1] for tag in task.get_labels()}
    for split, sentences in {"train": 14041, "dev": 3250, "test": 3453}.items():
        examples = task.read_examples_from_file(data_root / "conll2003", split)
        assert len(examples) == sentences
        assert {split_tag(tag)[1] for example in examples for tag in example.labels or []} <= known
