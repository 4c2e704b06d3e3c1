"""The files of GLUE's tasks, with all that their layout can trip a reader over."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from lightning_runs.glue_data import GLUE_TASKS, GlueCorpus, LabelledTexts, glue_task, read_glue_file
from lightning_runs.glue_model import glue_lines
from processors.examples import DataError

# train, dev, test as the official files have them
COUNTS = {
    "cola": (8551, 1043, 1063),
    "sst-2": (67349, 872, 1821),
    "mrpc": (3668, 408, 1725),
    "rte": (2490, 277, 3000),
    "sts-b": (5749, 1500, 1379),
    "wnli": (635, 71, 146),
}
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
MNLI = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.corpora
@pytest.mark.parametrize("name", COUNTS)
def test_every_row_of_the_official_files_is_read(name: str, data_root: Path) -> None:
    corpus = GlueCorpus(glue_task(name), str(data_root / "glue"))
    splits = [corpus.read(split) for split in ("train", "dev", "test")]
    assert tuple(len(split.examples) for split in splits) == COUNTS[name]
    assert not any(split.broken_lines for split in splits)
    assert all(example.label is not None for split in splits[:2] for example in split.examples)
    assert all(example.label is None for example in splits[2].examples)
    texts = [text for split in splits for example in split.examples for text in example.texts]
    assert all(text and text == text.strip() and "\ufeff" not in text for text in texts)
    assert {len(example.texts) for split in splits for example in split.examples} == {len(glue_task(name).texts)}


@pytest.mark.corpora
def test_labels_of_the_official_files_are_as_published(data_root: Path) -> None:
    def labels(name: str) -> list[float]:
        read = GlueCorpus(glue_task(name), str(data_root / "glue" / glue_task(name).folder)).read("dev")
        return [example.label for example in read.examples if example.label is not None]

    assert sum(labels("mrpc")) == 279  # 68.4% say the same
    assert sum(labels("sst-2")) == 444
    assert sum(labels("rte")) == 131  # not entailed
    assert (min(labels("sts-b")), max(labels("sts-b"))) == (0, 5)


def test_quotation_marks_are_characters(tmp_path: Path) -> None:
    rows = '1\t1\t2\t" he said\tshe said " no\n0\t3\t4\t"a" "b\t\'c\n1\t5\t6\td\te "\n'
    read = read_glue_file(GLUE_TASKS["mrpc"], written(tmp_path, "train.tsv", MRPC + rows), "train")
    assert [example.texts for example in read.examples] == [
        ('" he said', 'she said " no'),
        ('"a" "b', "'c"),
        ("d", 'e "'),
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_taken_off(tmp_path: Path) -> None:
    text = "\ufeff" + MRPC + "1\t1\t2\ta\tb\n"
    read = read_glue_file(GLUE_TASKS["mrpc"], written(tmp_path, "dev.tsv", text.replace("\n", "\r\n")), "dev")
    assert read.examples == [LabelledTexts(("a", "b"), 1.0)]


def test_other_line_separators_do_not_end_a_row(tmp_path: Path) -> None:
    text = "sentence\tlabel\nodd\x85 but\u2028 whole \t1\n"
    read = read_glue_file(GLUE_TASKS["sst-2"], written(tmp_path, "dev.tsv", text), "dev")
    assert [example.texts for example in read.examples] == [("odd\x85 but\u2028 whole",)]


def test_cola_has_no_header_but_in_test(tmp_path: Path) -> None:
    written(tmp_path, "dev.tsv", "gj04\t1\t\tThe sailors rode.\ncj99\t0\t*\tAs you eat.\n")
    written(tmp_path, "test.tsv", "index\tsentence\n0\tBill whistled.\n")
    corpus = GlueCorpus(GLUE_TASKS["cola"], str(tmp_path))
    assert [(one.texts, one.label) for one in corpus.read("dev").examples] == [
        (("The sailors rode.",), 1.0),
        (("As you eat.",), 0.0),
    ]
    assert corpus.read("test").examples == [LabelledTexts(("Bill whistled.",))]
    assert not corpus.has("train")


def test_a_broken_line_is_counted_in_train_and_an_error_elsewhere(tmp_path: Path, at: Callable[..., str]) -> None:
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    path = written(tmp_path, "train.tsv", header + "0\t1\t2\ta\tb\t1\n1\t3\t4\tc\n2\t5\t6\td\te\t0\n")
    read = read_glue_file(GLUE_TASKS["qqp"], path, "train")
    assert ([example.label for example in read.examples], read.broken_lines) == ([1.0, 0.0], [3])
    with pytest.raises(DataError, match=at(path, 3, "4 cells, but the file has 6 columns")):
        read_glue_file(GLUE_TASKS["qqp"], path, "dev")


@pytest.mark.parametrize(
    ("name", "text", "line", "said"),
    [
        ("mrpc", MRPC + "2\t1\t2\ta\tb\n", 2, "label '2' is none of 0, 1"),
        ("sts-b", "index\tsentence1\tsentence2\tscore\n0\ta\tb\thigh\n", 2, "'high' is not a score"),
        ("rte", MRPC, None, "no column 'sentence1'; there are Quality, #1 ID"),
        ("rte", "index\tsentence1\tsentence2\n0\ta\tb\n", None, "no column 'label'"),
        ("rte", "", None, "this file is empty"),
        ("mrpc", MRPC, None, "no examples in this file"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    name: str, text: str, line: int | None, said: str, tmp_path: Path, at: Callable[..., str]
) -> None:
    path = written(tmp_path, "dev.tsv", text)
    with pytest.raises(DataError, match=at(path, line, said)):
        read_glue_file(GLUE_TASKS[name], path, "dev")


def test_a_missing_split_is_named(tmp_path: Path, at: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=at(tmp_path, None, "no dev_matched.tsv, nor MNLI/dev_matched.tsv")):
        GlueCorpus(GLUE_TASKS["mnli"], str(tmp_path)).read("dev")
    with pytest.raises(DataError, match="AX has no train split; apply a trained model"):
        GlueCorpus(GLUE_TASKS["ax"], str(tmp_path)).read("train")
    with pytest.raises(ValueError, match="--data_dir or --dataset_name must be given"):
        GlueCorpus(GLUE_TASKS["ax"], "")


def test_mnli_is_matched_and_mismatched_and_ax_is_predicted(tmp_path: Path) -> None:
    task = GLUE_TASKS["mnli"]
    row = "0\t1\t1n\tfiction\ta\tb\tneutral\tcontradiction\n"
    for file in ("train", "dev_matched", "dev_mismatched"):
        written(tmp_path / "MNLI", f"{file}.tsv", MNLI + row)
    written(tmp_path / "diagnostic", "diagnostic.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n")
    corpus = GlueCorpus(task, str(tmp_path))
    assert task.splits_like("dev") == ["dev", "dev_mismatched"]
    assert [corpus.read(split).examples[0].label for split in task.splits_like("dev")] == [2.0, 2.0]
    assert [task.submission_name(split) for split in task.splits_like("test")] == ["MNLI-m", "MNLI-mm"]
    assert GlueCorpus(GLUE_TASKS["ax"], str(tmp_path)).read("test").examples == [LabelledTexts(("a", "b"))]
    assert GLUE_TASKS["ax"].classes == task.classes


def test_an_unknown_task_names_those_that_there_are() -> None:
    with pytest.raises(
        ValueError, match="--task xnli is none of cola, sst-2, mrpc, sts-b, qqp, mnli, qnli, rte, wnli, ax"
    ):
        glue_task("xnli")


def test_a_hugging_face_folder_is_read(tmp_path: Path) -> None:
    classes = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    features = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": classes,
            "idx": datasets.Value("int32"),
        }
    )

    def split(*labels: int) -> datasets.Dataset:
        rows = {"premise": ["a "] * len(labels), "hypothesis": ["b"] * len(labels), "label": list(labels)}
        return datasets.Dataset.from_dict(rows | {"idx": list(range(len(labels)))}, features=features)

    names = {
        "train": split(0, 1, 2),
        "validation_matched": split(2),
        "validation_mismatched": split(1),
        "test_matched": split(-1),
    }
    datasets.DatasetDict(names).save_to_disk(tmp_path / "mnli")
    corpus = GlueCorpus(GLUE_TASKS["mnli"], "", str(tmp_path / "mnli"))
    assert [example.label for example in corpus.read("train").examples] == [0.0, 1.0, 2.0]
    assert corpus.read("dev").examples == [LabelledTexts(("a", "b"), 2.0)]
    assert corpus.read("dev_mismatched").examples[0].label == 1.0
    assert corpus.read("test").examples[0].label is None
    assert not corpus.has("test_mismatched")
    with pytest.raises(DataError, match="no column sentence1, sentence2"):
        GlueCorpus(GLUE_TASKS["rte"], "", str(tmp_path / "mnli")).read("train")


def test_submissions_have_a_header_and_name_classes() -> None:
    assert glue_lines(GLUE_TASKS["rte"], [1, 0]) == ["index\tprediction", "0\tnot_entailment", "1\tentailment"]
    assert glue_lines(GLUE_TASKS["sts-b"], [5.2, -0.1, 2.5]) == [
        "index\tprediction",
        "0\t5.000",
        "1\t0.000",
        "2\t2.500",
    ]
