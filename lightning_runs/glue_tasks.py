"""The tasks of GLUE (Wang et al. 2019): their files, columns and classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_SPLITS = {"train": "train", "dev": "dev", "test": "test"}


@dataclass(frozen=True)
class GlueTask:
    """One task, as its original files and its Hugging Face configuration have it.

    Args:
        folder: of the original files, and the name of the submission file.
        texts: the columns of the one or two texts.
        configuration: its name in the Hugging Face data set.
        label: the column of the class or score.
        hub_texts: the columns of the texts in the Hugging Face data set, where they differ.
        classes: names of the classes in the order of their ids, as the files write them; empty: a score is learnt.
        files: the file of each split, without its suffix; further ones follow the first, for instance mismatched ones.
        columns_without_header: the columns of files that name none, by split.
        submission_suffixes: what the submission files of several test splits end in.
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
        """``dev`` or ``test`` and what else is scored or predicted beside it, as far as the task has it."""
        return [name for name in self.files if name == split or name.startswith(f"{split}_")]

    def submission_name(self, split: str) -> str:
        """How GLUE's server wants the file of a test split to be named, but for the suffix."""
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
    """The task of this name, in capitals or not.

    Raises:
        ValueError: there is none.
    """
    if name.lower() not in GLUE_TASKS:
        raise ValueError(f"--task {name} is none of {', '.join(GLUE_TASKS)}")
    return GLUE_TASKS[name.lower()]
