"""Features of texts and text pairs: flat arrays, cached on disk and memory-mapped."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from common.durable import atomic_write
from lightning_runs.glue_reader import GlueSplit, LabelledTexts
from processors.features.alignment import structure_ids, unknown_id
from processors.features.cache import tokenizer_digest

_FORMAT_VERSION = 2
_CHUNK = 10_000


@dataclass
class TextFeatures:
    """A text or pair without padding: token ids and token types ``(T,)``, and the label, NaN if there is none."""

    input_ids: NDArray[np.int32]
    token_type_ids: NDArray[np.uint8]
    label: float


class TextDataset(Dataset[TextFeatures]):
    """Dataset of texts with labels.

    Args:
        arrays: concatenated ``input_ids`` and ``token_type_ids``, ``lengths`` and ``labels`` per text, and
            ``truncated``, the number of truncated texts.
        tokenizer: tokenizer that pads the batches.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], tokenizer: PreTrainedTokenizerBase) -> None:
        self._arrays = arrays
        self._tokenizer = tokenizer
        self._starts = np.concatenate(([0], np.cumsum(self.lengths, dtype=np.int64)))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> TextFeatures:
        own = slice(self._starts[index], self._starts[index + 1])
        return TextFeatures(
            self._arrays["input_ids"][own], self._arrays["token_type_ids"][own], float(self.labels[index])
        )

    @property
    def lengths(self) -> NDArray[np.int32]:
        return self._arrays["lengths"]

    @property
    def labels(self) -> NDArray[np.float32]:
        return self._arrays["labels"]

    @cached_property
    def truncated(self) -> int:
        return int(self._arrays["truncated"][0])

    def collate(self, features: Sequence[TextFeatures]) -> dict[str, torch.Tensor]:
        """Pad to the longest text of the batch: ``(B, T)`` each, and ``labels (B,)``.

        An empty batch, which a rank or round may get in a small step, becomes one text without a label.
        """
        features = features or [replace(self[0], label=math.nan)]
        rows = {
            "input_ids": [feature.input_ids.tolist() for feature in features],
            "token_type_ids": [feature.token_type_ids.tolist() for feature in features],
        }
        padded = self._tokenizer.pad(rows, padding=True, return_attention_mask=True, return_tensors="pt")
        return {**padded, "labels": torch.tensor([feature.label for feature in features])}


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
