"""The GLUE tasks (Wang et al. 2019): their files, columns and classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_SPLITS = {"train": "train", "dev": "dev", "test": "test"}


@dataclass(frozen=True)
class GlueTask:
    """A task, in its original files and as a Hugging Face configuration.

    Args:
        folder: folder of the original files, and name of the submission file.
        texts: columns of the one or two texts.
        configuration: name in the Hugging Face dataset.
        label: column of the class or score.
        hub_texts: columns of the texts in the Hugging Face dataset, if they differ.
        classes: names of the classes by id, as in the files; empty for a regression.
        files: file of each split, without its suffix.
        columns_without_header: by split, the columns of files without a header.
        submission_suffixes: suffixes of the submission files, if there are several test splits.
    """

    folder: str
    texts: tuple[str, ...]
    configuration: str
    label: str = "label"
    hub_texts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ("0", "1")
    files: Mapping[str, str] = field(default_factory=lambda: _SPLITS)
    columns_without_header: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    submission_suffixes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_regression(self) -> bool:
        return not self.classes

    @property
    def num_labels(self) -> int:
        return len(self.classes) or 1

    def splits_like(self, split: str) -> list[str]:
        """``dev`` or ``test``, and the mismatched split where the task has one."""
        return [name for name in self.files if name == split or name.startswith(f"{split}_")]

    def submission_name(self, split: str) -> str:
        """Name of the submission file of a test split, without its suffix."""
        return self.folder + self.submission_suffixes.get(split, "")


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("entailment", "neutral", "contradiction")
_COLA_COLUMNS = ("source", "label", "mark", "sentence")
_MNLI_FILES = {
    "train": "train",
    "dev": "dev_matched",
    "dev_mismatched": "dev_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
}

GLUE_TASKS = {
    "cola": GlueTask(
        *("CoLA", ("sentence",), "cola"),
        columns_without_header={"train": _COLA_COLUMNS, "dev": _COLA_COLUMNS},
    ),
    "sst-2": GlueTask("SST-2", ("sentence",), "sst2"),
    "mrpc": GlueTask("MRPC", ("#1 String", "#2 String"), "mrpc", label="Quality", hub_texts=_PAIR),
    "sts-b": GlueTask("STS-B", _PAIR, "stsb", label="score", classes=()),
    "qqp": GlueTask("QQP", ("question1", "question2"), "qqp", label="is_duplicate"),
    "mnli": GlueTask(
        *("MNLI", _PAIR, "mnli"),
        label="gold_label",
        hub_texts=("premise", "hypothesis"),
        classes=_INFERENCE,
        files=_MNLI_FILES,
        submission_suffixes={"test": "-m", "test_mismatched": "-mm"},
    ),
    "qnli": GlueTask("QNLI", ("question", "sentence"), "qnli", classes=_ENTAILMENT),
    "rte": GlueTask("RTE", _PAIR, "rte", classes=_ENTAILMENT),
    "wnli": GlueTask("WNLI", _PAIR, "wnli"),
    "ax": GlueTask(
        *("AX", _PAIR, "ax"), hub_texts=("premise", "hypothesis"), classes=_INFERENCE, files={"test": "diagnostic"}
    ),
}


def glue_task(name: str) -> GlueTask:
    """The task of this name, in upper or lower case.

    Raises:
        ValueError: there is none.
    """
    if name.lower() not in GLUE_TASKS:
        raise ValueError(f"--task {name} is none of {', '.join(GLUE_TASKS)}")
    return GLUE_TASKS[name.lower()]
