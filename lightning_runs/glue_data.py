"""The GLUE tasks; their data in the original layout or as a Hugging Face dataset; and features of the texts.

Cells are split at tabs only: quotation marks are ordinary characters, and a CSV parser would lose rows. Files may begin
with a byte order mark; CoLA has no header; texts may end in spaces.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from common.durable import atomic_write
from processors.examples import DataError
from processors.features.alignment import structure_ids, unknown_id
from processors.features.cache import tokenizer_digest
from processors.formats.hub import open_hub_split
from processors.formats.text_lines import read_lines

_FORMAT_VERSION = 2  # of the cached features
_CHUNK = 10_000
_SPLITS = {"train": "train", "dev": "dev", "test": "test"}


@dataclass(frozen=True)
class GlueTask:
    """A GLUE task, as original files and as a Hugging Face configuration.

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

    def splits_like(self, split: str) -> list[str]:
        """``dev`` or ``test``, and the mismatched split if the task has one."""
        return [name for name in self.files if name == split or name.startswith(f"{split}_")]

    def submission_name(self, split: str) -> str:
        """Name of the submission file of a test split, without its suffix."""
        return self.folder + self.submission_suffixes.get(split, "")


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("entailment", "neutral", "contradiction")
_COLA = ("source", "label", "mark", "sentence")
_MNLI_FILES = {
    "train": "train",
    "dev": "dev_matched",
    "dev_mismatched": "dev_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
}

GLUE_TASKS = {
    "cola": GlueTask("CoLA", ("sentence",), "cola", columns_without_header=dict.fromkeys(("train", "dev"), _COLA)),
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
    """Find a task by name, ignoring case.

    Raises:
        ValueError: there is no such task.
    """
    if name.lower() not in GLUE_TASKS:
        raise ValueError(f"--task {name} is none of {', '.join(GLUE_TASKS)}")
    return GLUE_TASKS[name.lower()]


@dataclass(frozen=True)
class LabelledTexts:
    """A text or a text pair.

    Args:
        texts: one or two.
        label: id of the class, or the score; None if unknown.
    """

    texts: tuple[str, ...]
    label: float | None = None


@dataclass
class GlueSplit:
    """A split of a task.

    Args:
        source: file or dataset.
        digest: hash of the content.
        examples: texts with labels.
        broken_lines: numbers of training lines that were skipped because of a wrong number of cells (QQP has some).
    """

    source: str
    digest: str
    examples: list[LabelledTexts]
    broken_lines: list[int] = field(default_factory=list)


class GlueCorpus:
    """The splits of a task, from files or a Hugging Face dataset; each is read once.

    Args:
        data_dir: folder of the task, or of GLUE with one folder per task.
        dataset_name: dataset to use instead: ``NAME``, ``NAME:CONFIGURATION`` or a folder.
        cache_dir: folder for downloads.
    """

    def __init__(self, task: GlueTask, data_dir: str, dataset_name: str = "", cache_dir: str | None = None) -> None:
        if not (data_dir or dataset_name):
            raise ValueError("--data_dir or --dataset_name must be given")
        self.task, self._data_dir = task, Path(data_dir)
        self._dataset_name, self._cache_dir = dataset_name, cache_dir
        self._read: dict[str, GlueSplit | None] = {}

    def has(self, split: str) -> bool:
        return self._find(split) is not None

    def read(self, split: str) -> GlueSplit:
        """Read a split.

        Raises:
            DataError: it is missing or malformed.
        """
        found = self._find(split)
        if found is None:
            if split not in self.task.files:
                advice = "apply a trained model with --do_predict --model_name_or_path RUN"
                raise DataError(f"{self.task.folder} has no {split} split; {advice}")
            name = f"{self.task.files[split]}.tsv"
            raise DataError(f"no {name}, nor {self.task.folder}/{name}", self._dataset_name or self._data_dir)
        return found

    def _find(self, split: str) -> GlueSplit | None:
        if split not in self._read and split in self.task.files:
            if self._dataset_name:
                self._read[split] = read_glue_hub(self.task, self._dataset_name, split, self._cache_dir)
            else:
                name = self.task.files[split]
                folders = (self._data_dir, self._data_dir / self.task.folder, self._data_dir / name)
                path = next((path for folder in folders if (path := folder / f"{name}.tsv").is_file()), None)
                self._read[split] = read_glue_file(self.task, path, split) if path else None
        return self._read.get(split)


def read_glue_file(task: GlueTask, path: Path, split: str) -> GlueSplit:
    """Read a file of the original layout.

    Raises:
        DataError: a column is missing, a label is not a class, or a line of dev or test has a wrong number of cells.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    found = GlueSplit(str(path), digest, [])
    lines = read_lines(path)
    columns = task.columns_without_header.get(split) or tuple(next(lines, (1, ""))[1].split("\t"))
    if columns == ("",):
        raise DataError("this file is empty", path)
    texts = [_column(columns, name, path) for name in task.texts]
    has_label = split.startswith(("train", "dev")) or task.label in columns
    label = _column(columns, task.label, path) if has_label else None
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) != len(columns):
            if split != "train":
                raise DataError(f"{len(cells)} cells, but the file has {len(columns)} columns", path, number)
            found.broken_lines.append(number)
            continue
        value = None if label is None else _label(task, cells[label], path, number)
        found.examples.append(LabelledTexts(tuple(cells[index].strip() for index in texts), value))
    if not found.examples:
        raise DataError("no examples in this file; check that it is the right one and complete", path)
    return found


def read_glue_hub(task: GlueTask, name: str, split: str, cache_dir: str | None = None) -> GlueSplit | None:
    """Read a split of a Hugging Face dataset, by name or from a folder; ``None`` if it has no such split."""
    if ":" not in name and not Path(name).exists():
        name = f"{name}:{task.configuration}"
    dataset = open_hub_split(name, split, cache_dir)
    if dataset is None:
        return None
    place = f"{name} ({split})"
    columns = task.hub_texts or task.texts
    missing = {*columns} - {*dataset.column_names}
    if missing:
        raise DataError(f"no column {', '.join(sorted(missing))}; there are {', '.join(dataset.column_names)}", place)
    examples = [
        LabelledTexts(tuple(row[column].strip() for column in columns), _hub_label(task, row, place, index))
        for index, row in enumerate(dataset)
    ]
    return GlueSplit(place, dataset._fingerprint, examples)


def _column(columns: tuple[str, ...], name: str, path: Path) -> int:
    if name not in columns:
        there = f"there are {', '.join(columns)}; check that it is a file of this task"
        raise DataError(f"no column {name!r}; {there}", path)
    return columns.index(name)


def _label(task: GlueTask, cell: str, path: Path, line: int) -> float:
    if task.is_regression:
        try:
            return float(cell)
        except ValueError:
            raise DataError(f"{cell!r} is not a score", path, line) from None
    if cell not in task.classes:
        raise DataError(f"label {cell!r} is none of {', '.join(task.classes)}", path, line)
    return float(task.classes.index(cell))


def _hub_label(task: GlueTask, row: dict[str, Any], place: str, index: int) -> float | None:
    """Convert a dataset label: a class id in our order, or a score; -1 means unlabelled."""
    value = row.get("label")
    if value is None or value == -1:
        return None
    if not task.is_regression and value not in range(len(task.classes)):
        raise DataError(f"class {value} is none of the {len(task.classes)}", place, index)
    return float(value)


class TextDataset(Dataset[dict[str, Any]]):
    """Dataset of texts or pairs: ``input_ids`` and ``token_type_ids``, without padding, and ``labels``, NaN if unknown.

    Args:
        arrays: concatenated ``input_ids`` and ``token_type_ids``, ``lengths`` and ``labels`` per text, and
            ``truncated``, the number of truncated texts.
        tokenizer: tokenizer that pads the batches.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], tokenizer: PreTrainedTokenizerBase) -> None:
        self._arrays, self._tokenizer = arrays, tokenizer
        self.lengths, self.labels, self.truncated = arrays["lengths"], arrays["labels"], int(arrays["truncated"][0])
        self._ends = np.cumsum(self.lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        own = slice(self._ends[index] - self.lengths[index], self._ends[index])
        rows = {name: self._arrays[name][own].tolist() for name in ("input_ids", "token_type_ids")}
        return rows | {"labels": float(self.labels[index])}

    def collate(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad to the longest text of the batch: ``(B, T)`` each, and ``labels (B,)``.

        An empty batch, which a rank or round may get in a small step, becomes one text without a label.
        """
        rows: Any = list(features) or [self[0] | {"labels": math.nan}]
        return dict(self._tokenizer.pad(rows, return_attention_mask=True, return_tensors="pt"))


def open_or_build_texts(
    split: GlueSplit,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    cache_dir: Path,
    overwrite: bool = False,
) -> TextDataset:
    """Open the cached features of a split, building them if needed. Safe with concurrent processes and crashes."""
    key = [_FORMAT_VERSION, split.digest, max_seq_length, tokenizer_digest(tokenizer)]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=12).hexdigest()
    folder = cache_dir / f"texts-{digest}"
    if overwrite or not folder.is_dir():
        with atomic_write(folder, "replace" if overwrite else "keep") as fresh:  # another process may be faster
            fresh.mkdir()
            for name, array in text_arrays(split.examples, tokenizer, max_seq_length).items():
                np.save(fresh / f"{name}.npy", array)
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    return TextDataset(arrays, tokenizer)


def text_arrays(
    examples: Sequence[LabelledTexts], tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> dict[str, NDArray[Any]]:
    """Build the arrays of `TextDataset`. Long texts are truncated, the longer one of a pair first.

    Words that spell a special token become the unknown token.

    Raises:
        ValueError: ``max_seq_length`` leaves no room for text.
    """
    added = tokenizer.num_special_tokens_to_add(pair=len(examples[0].texts) == 2)
    if max_seq_length <= added:
        raise ValueError(f"max_seq_length {max_seq_length} leaves no room for text: there are {added} special tokens")
    structure, unknown = structure_ids(tokenizer), unknown_id(tokenizer)
    ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.uint8]] = []
    truncated = 0
    for start in range(0, len(examples), _CHUNK):
        some = [example.texts for example in examples[start : start + _CHUNK]]
        columns = [list(column) for column in zip(*some, strict=True)]
        options: dict[str, Any] = {"return_token_type_ids": True, "return_attention_mask": False, "verbose": False}
        encoded = tokenizer(
            *columns, truncation="longest_first", max_length=max_seq_length, return_special_tokens_mask=True, **options
        )
        for row, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            spelt = np.isin(row, structure) & (np.array(special) == 0)
            ids.append(np.where(spelt, unknown, row).astype(np.int32))
        types += [np.array(row, np.uint8) for row in encoded["token_type_ids"]]
        full = [index for index, row in enumerate(encoded["input_ids"]) if len(row) == max_seq_length]
        if full:
            whole = tokenizer(*([column[index] for index in full] for column in columns), **options)
            truncated += sum(len(row) > max_seq_length for row in whole["input_ids"])
    return {
        "input_ids": np.concatenate(ids),
        "token_type_ids": np.concatenate(types),
        "lengths": np.array([len(row) for row in ids], np.int32),
        "labels": np.array([math.nan if one.label is None else one.label for one in examples], np.float32),
        "truncated": np.array([truncated], np.int32),
    }
