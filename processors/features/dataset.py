"""Features as a few flat arrays, in memory or mapped from disk, and the data set that reads windows off them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from processors.features.windows import SequenceLayout

_DTYPES: dict[str, type[np.generic]] = {
    "input_ids": np.int32,  # of all windows, one after the other
    "casings": np.uint8,  # of the word that each token is of; nothing where the layout does not tell them apart
    "word_positions": np.int32,  # of each word in its window: the token index of its first piece
    "window_label_ids": np.int16,  # of each word, legal within its window
    "label_ids": np.int16,  # of each word, as the document has it
    "offsets": np.int32,  # (words, 2) characters of each word in its document's text
    "window_tokens": np.int32,  # tokens of each window
    "window_words": np.int32,  # words that each window owns
    "document_windows": np.int32,
    "document_words": np.int32,
    "text_bytes": np.int32,  # length of each document's text
    "guid_bytes": np.int32,
    "texts": np.uint8,  # UTF-8 of all documents
    "guids": np.uint8,
}


@dataclass
class InputFeatures:
    """One window, without padding.

    Args:
        input_ids: ``(T,)`` tokens, special ones included.
        segment_ids: ``(T,)`` token types.
        word_positions: ``(W,)`` index of the first word piece of each owned word in ``input_ids``.
        label_ids: ``(W,)`` labels of the owned words; -100 where there are none.
        document: which document the window is of.
        first_word: place of the first owned word in the document.
    """

    input_ids: NDArray[np.int32]
    segment_ids: NDArray[np.int64]
    word_positions: NDArray[np.int32]
    label_ids: NDArray[np.int16]
    document: int
    first_word: int


@dataclass(frozen=True)
class Document:
    """One text with its words and gold labels: ``label_ids`` is ``(W,)``, all -100 for unlabelled text."""

    guid: str
    text: str
    offsets: NDArray[np.int32]
    label_ids: NDArray[np.int16]

    @property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.offsets]


class FeatureArrays(dict[str, NDArray[Any]]):
    """The arrays by name; see ``_DTYPES`` for what each holds."""

    @staticmethod
    def collector() -> "_Collector":
        return _Collector()

    @staticmethod
    def mapped(folder: Path) -> "FeatureArrays":
        """Opens arrays on disk without reading them."""
        arrays = FeatureArrays()
        for name, dtype in _DTYPES.items():
            path = folder / f"{name}.bin"
            empty = path.stat().st_size == 0
            flat: NDArray[Any] = np.empty(0, dtype) if empty else np.memmap(path, dtype, mode="r")
            arrays[name] = flat.reshape(-1, 2) if name == "offsets" else flat
        return arrays

    def append_to(self, folder: Path) -> None:
        """Adds these arrays at the end of those on disk."""
        for name, dtype in _DTYPES.items():
            with (folder / f"{name}.bin").open("ab") as file:
                file.write(np.ascontiguousarray(self[name], dtype).tobytes())


class _Collector:
    """Gathers windows and documents one by one, to be concatenated in the end."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Any]] = {name: [] for name in _DTYPES}

    def add_window(
        self,
        input_ids: NDArray[np.int32],
        casings: NDArray[np.uint8],
        word_positions: NDArray[np.int64],
        label_ids: NDArray[np.int16],
    ) -> None:
        self._parts["input_ids"].append(input_ids)
        self._parts["casings"].append(casings)
        self._parts["word_positions"].append(word_positions)
        self._parts["window_label_ids"].append(label_ids)
        self._parts["window_tokens"].append([len(input_ids)])
        self._parts["window_words"].append([len(word_positions)])

    def add_document(
        self, guid: str, text: str, offsets: Sequence[tuple[int, int]], label_ids: NDArray[np.int16], windows: int
    ) -> None:
        encoded = {"text": text.encode("utf-8", "surrogatepass"), "guid": guid.encode("utf-8", "surrogatepass")}
        for name, raw in encoded.items():
            self._parts[f"{name}s"].append(np.frombuffer(raw, np.uint8))
            self._parts[f"{name}_bytes"].append([len(raw)])
        self._parts["offsets"].append(np.array(offsets, np.int32).reshape(-1, 2))
        self._parts["label_ids"].append(label_ids)
        self._parts["document_windows"].append([windows])
        self._parts["document_words"].append([len(label_ids)])

    def concatenated(self) -> FeatureArrays:
        arrays = FeatureArrays()
        for name, dtype in _DTYPES.items():
            shape: tuple[int, ...] = (0, 2) if name == "offsets" else (0,)
            parts = [np.empty(shape, dtype), *(np.asarray(part, dtype) for part in self._parts[name])]
            arrays[name] = np.concatenate(parts)
        return arrays


class FeatureDataset(Dataset[InputFeatures]):
    """Windows of a corpus, by index; documents beside them, for gold labels and texts.

    Args:
        arrays: see `FeatureArrays`.
        layout: special tokens and padding.
        label_list: the tags that label ids stand for.
    """

    def __init__(self, arrays: FeatureArrays, layout: SequenceLayout, label_list: Sequence[str] = ()) -> None:
        self.arrays = arrays
        self.layout = layout
        self.label_list = list(label_list)
        self._token_starts = _starts(arrays["window_tokens"])
        self._word_starts = _starts(arrays["window_words"])
        self._document_word_starts = _starts(arrays["document_words"])
        self._document_window_starts = _starts(arrays["document_windows"])

    def __len__(self) -> int:
        return len(self.arrays["window_tokens"])

    def __getitem__(self, index: int) -> InputFeatures:
        if not 0 <= index < len(self):
            raise IndexError(index)
        tokens = slice(self._token_starts[index], self._token_starts[index + 1])
        words = slice(self._word_starts[index], self._word_starts[index + 1])
        document = int(np.searchsorted(self._document_window_starts, index, side="right")) - 1
        return InputFeatures(
            input_ids=self.arrays["input_ids"][tokens],
            segment_ids=self._segment_ids(tokens),
            word_positions=self.arrays["word_positions"][words],
            label_ids=self.arrays["window_label_ids"][words],
            document=document,
            first_word=int(words.start - self._document_word_starts[document]),
        )

    def __iter__(self) -> Iterator[InputFeatures]:
        return (self[index] for index in range(len(self)))

    @property
    def num_documents(self) -> int:
        return len(self.arrays["document_words"])

    @property
    def num_words(self) -> int:
        return len(self.arrays["label_ids"])

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each window, ``(windows,)``."""
        return self.arrays["window_tokens"]

    @property
    def word_counts(self) -> NDArray[np.int32]:
        """Words that each window owns, ``(windows,)``."""
        return self.arrays["window_words"]

    def windows_of(self, first: int, last: int) -> range:
        """The windows of the documents ``first`` up to but not including ``last``."""
        return range(int(self._document_window_starts[first]), int(self._document_window_starts[last]))

    def document(self, index: int) -> Document:
        words = slice(self._document_word_starts[index], self._document_word_starts[index + 1])
        return Document(
            guid=_decoded(self.arrays["guids"], self._guid_starts, index),
            text=_decoded(self.arrays["texts"], self._text_starts, index),
            offsets=self.arrays["offsets"][words],
            label_ids=self.arrays["label_ids"][words],
        )

    def gold_label_ids(self, index: int) -> NDArray[np.int16]:
        """Labels of a document's words, ``(W,)``, without reading its text."""
        return self.arrays["label_ids"][self._document_word_starts[index] : self._document_word_starts[index + 1]]

    def collate(self, features: Sequence[InputFeatures]) -> dict[str, torch.Tensor]:
        """Pads windows to the longest of the batch.

        No window at all, the share that a small step leaves for a rank or round, becomes one whose words do not count.

        Returns:
            ``input_ids``, ``attention_mask``, ``token_type_ids`` of shape ``(B, T)``; ``word_positions``,
            ``word_mask``, ``labels`` of shape ``(B, W)``, right-padded whichever side the tokens are padded on.
        """
        if not features:
            features = [replace(self[0], word_positions=np.empty(0, np.int32), label_ids=np.empty(0, np.int16))]
        B = len(features)
        T = max(len(feature.input_ids) for feature in features)
        W = max(1, *(len(feature.word_positions) for feature in features))
        input_ids = np.full((B, T), self.layout.pad_token, np.int64)
        token_type_ids = np.full((B, T), self.layout.pad_token_segment_id, np.int64)
        attention_mask = np.zeros((B, T), np.int64)
        word_positions = np.zeros((B, W), np.int64)
        word_mask = np.zeros((B, W), bool)
        labels = np.full((B, W), -100, np.int64)
        for row, feature in enumerate(features):
            length, words = len(feature.input_ids), len(feature.word_positions)
            start = T - length if self.layout.pad_on_left else 0
            input_ids[row, start : start + length] = feature.input_ids
            token_type_ids[row, start : start + length] = feature.segment_ids
            attention_mask[row, start : start + length] = 1
            word_positions[row, :words] = feature.word_positions + start
            word_mask[row, :words] = True
            labels[row, :words] = feature.label_ids
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "token_type_ids": torch.from_numpy(token_type_ids),
            "word_positions": torch.from_numpy(word_positions),
            "word_mask": torch.from_numpy(word_mask),
            "labels": torch.from_numpy(labels),
        }

    @cached_property
    def _text_starts(self) -> NDArray[np.int64]:
        return _starts(self.arrays["text_bytes"])

    @cached_property
    def _guid_starts(self) -> NDArray[np.int64]:
        return _starts(self.arrays["guid_bytes"])

    def _segment_ids(self, tokens: slice) -> NDArray[np.int64]:
        layout, count = self.layout, tokens.stop - tokens.start
        if layout.casing_segments:
            segments = np.array(layout.casing_segments, np.int64)[self.arrays["casings"][tokens]]
        else:
            segments = np.full(count, layout.segment, np.int64)
        segments[: len(layout.before)] = layout.before_segments
        segments[count - len(layout.after) :] = layout.after_segments
        return segments


def _starts(counts: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def _decoded(blob: NDArray[np.uint8], starts: NDArray[np.int64], index: int) -> str:
    return blob[starts[index] : starts[index + 1]].tobytes().decode("utf-8", "surrogatepass")
