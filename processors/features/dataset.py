"""Features as flat arrays, in memory or mapped from disk, and the data set that reads windows from them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from common.entities import Annotation, Entity, in_text_order
from processors.features.windows import SequenceLayout

Encode = Callable[[Sequence[Annotation]], torch.Tensor]

_DTYPES: dict[str, type[np.generic]] = {
    "input_ids": np.int32,  # tokens of all windows, concatenated
    "casings": np.uint8,  # casing of the word of each token; empty if the layout does not use casing
    "word_positions": np.int32,  # index of the first piece of each word in its window
    "offsets": np.int32,  # (words, 2) characters of each word in the text of its document
    "window_tokens": np.int32,  # tokens of each window
    "window_words": np.int32,  # words that each window owns
    "document_windows": np.int32,
    "document_words": np.int32,
    "document_entities": np.int32,  # number of entities; -1 if the document is not annotated
    "entities": np.int32,  # (entities, 3) type, first and last word in the document, in text order
    "document_unannotated": np.int32,  # number of unannotated word ranges
    "unannotated": np.int32,  # (ranges, 2) first and last word
    "text_bytes": np.int32,  # length of the text of each document
    "guid_bytes": np.int32,
    "texts": np.uint8,  # UTF-8 of all documents
    "guids": np.uint8,
}
_WIDTHS = {"offsets": 2, "entities": 3, "unannotated": 2}  # of the two-dimensional arrays


@dataclass
class InputFeatures:
    """One window, without padding.

    Args:
        input_ids: ``(T,)`` tokens, including special tokens.
        segment_ids: ``(T,)`` token types.
        word_positions: ``(W,)`` index of the first word piece of each owned word in ``input_ids``.
        annotation: annotation of the owned words; entities are clipped to the window.
        document: index of the document.
        first_word: index of the first owned word in the document.
    """

    input_ids: NDArray[np.int32]
    segment_ids: NDArray[np.int64]
    word_positions: NDArray[np.int32]
    annotation: Annotation
    document: int
    first_word: int


@dataclass(frozen=True)
class Document:
    """One text, the character offsets ``(W, 2)`` of its words, and its annotation."""

    guid: str
    text: str
    offsets: NDArray[np.int32]
    annotation: Annotation

    @property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.offsets]


class FeatureArrays(dict[str, NDArray[Any]]):
    """The arrays by name, described at ``_DTYPES``."""

    @staticmethod
    def collector() -> "_Collector":
        return _Collector()

    @staticmethod
    def mapped(folder: Path) -> "FeatureArrays":
        """Memory-map arrays on disk."""
        arrays = FeatureArrays()
        for name, dtype in _DTYPES.items():
            path = folder / f"{name}.bin"
            empty = path.stat().st_size == 0
            flat: NDArray[Any] = np.empty(0, dtype) if empty else np.asarray(np.memmap(path, dtype, mode="r"))
            arrays[name] = flat.reshape(_shape(name))
        return arrays

    def append_to(self, folder: Path) -> None:
        """Append these arrays to those on disk."""
        for name, dtype in _DTYPES.items():
            with (folder / f"{name}.bin").open("ab") as file:
                file.write(np.ascontiguousarray(self[name], dtype).tobytes())


class _Collector:
    """Collects windows and documents and concatenates their arrays."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Any]] = {name: [] for name in _DTYPES}

    def add_window(
        self, input_ids: NDArray[np.int32], casings: NDArray[np.uint8], word_positions: NDArray[np.int64]
    ) -> None:
        self._parts["input_ids"].append(input_ids)
        self._parts["casings"].append(casings)
        self._parts["word_positions"].append(word_positions)
        self._parts["window_tokens"].append([len(input_ids)])
        self._parts["window_words"].append([len(word_positions)])

    def add_document(
        self,
        guid: str,
        text: str,
        offsets: Sequence[tuple[int, int]],
        annotation: Annotation,
        type_ids: Mapping[str, int],
        windows: int,
    ) -> None:
        encoded = {"text": text.encode("utf-8", "surrogatepass"), "guid": guid.encode("utf-8", "surrogatepass")}
        for name, raw in encoded.items():
            self._parts[f"{name}s"].append(np.frombuffer(raw, np.uint8))
            self._parts[f"{name}_bytes"].append([len(raw)])
        entities = [(type_ids[entity.type], *entity[1:]) for entity in in_text_order(annotation.entities or ())]
        rows = {"offsets": offsets, "entities": entities, "unannotated": annotation.unannotated}
        for name, values in rows.items():
            self._parts[name].append(np.array(values, np.int32).reshape(_shape(name)))
        self._parts["document_windows"].append([windows])
        self._parts["document_words"].append([annotation.words])
        self._parts["document_entities"].append([-1 if annotation.entities is None else len(entities)])
        self._parts["document_unannotated"].append([len(annotation.unannotated)])

    def concatenated(self) -> FeatureArrays:
        arrays = FeatureArrays()
        for name, dtype in _DTYPES.items():
            parts = [np.empty(0, dtype).reshape(_shape(name)), *(np.asarray(part, dtype) for part in self._parts[name])]
            arrays[name] = np.concatenate(parts)
        return arrays


def _shape(name: str) -> tuple[int, ...]:
    return (-1, _WIDTHS[name]) if name in _WIDTHS else (-1,)


class FeatureDataset(Dataset[InputFeatures]):
    """The windows of a corpus by index, and its documents with texts and gold entities.

    Args:
        arrays: see `FeatureArrays`.
        layout: special tokens and padding.
        types: entity types, in the order of their ids in the arrays.
        encode: makes the labels of a batch from the annotations of its windows; without it batches have no labels.
    """

    def __init__(
        self,
        arrays: FeatureArrays,
        layout: SequenceLayout,
        types: Sequence[str] = (),
        encode: Encode | None = None,
    ) -> None:
        self.arrays = arrays
        self.layout = layout
        self.types = list(types)
        self.encode = encode
        self._token_starts = _starts(arrays["window_tokens"])
        self._word_starts = _starts(arrays["window_words"])
        self._document_word_starts = _starts(arrays["document_words"])
        self._document_window_starts = _starts(arrays["document_windows"])
        self._entity_starts = _starts(np.maximum(arrays["document_entities"], 0))
        self._unannotated_starts = _starts(arrays["document_unannotated"])

    def __len__(self) -> int:
        return len(self.arrays["window_tokens"])

    def __getitem__(self, index: int) -> InputFeatures:
        if not 0 <= index < len(self):
            raise IndexError(index)
        tokens = slice(self._token_starts[index], self._token_starts[index + 1])
        words = slice(self._word_starts[index], self._word_starts[index + 1])
        document = int(np.searchsorted(self._document_window_starts, index, side="right")) - 1
        first_word = int(words.start - self._document_word_starts[document])
        return InputFeatures(
            input_ids=self.arrays["input_ids"][tokens],
            segment_ids=self._segment_ids(tokens),
            word_positions=self.arrays["word_positions"][words],
            annotation=self.annotation(document, first_word, first_word + int(words.stop - words.start)),
            document=document,
            first_word=first_word,
        )

    def __iter__(self) -> Iterator[InputFeatures]:
        return (self[index] for index in range(len(self)))

    @property
    def num_documents(self) -> int:
        return len(self.arrays["document_words"])

    @property
    def num_words(self) -> int:
        return int(self._document_word_starts[-1])

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each window, ``(windows,)``."""
        return self.arrays["window_tokens"]

    @property
    def word_counts(self) -> NDArray[np.int32]:
        """Words that each window owns, ``(windows,)``."""
        return self.arrays["window_words"]

    def windows_of(self, first: int, last: int) -> range:
        """Indices of the windows of the documents ``first`` to ``last`` (exclusive)."""
        return range(int(self._document_window_starts[first]), int(self._document_window_starts[last]))

    def document(self, index: int) -> Document:
        words = slice(self._document_word_starts[index], self._document_word_starts[index + 1])
        return Document(
            guid=_decoded(self.arrays["guids"], self._guid_starts, index),
            text=_decoded(self.arrays["texts"], self._text_starts, index),
            offsets=self.arrays["offsets"][words],
            annotation=self.annotation(index),
        )

    def annotation(self, index: int, start: int = 0, end: int | None = None) -> Annotation:
        """Annotation of a document, or of its words ``start`` to ``end`` (exclusive), indexed relative to ``start``.

        Entities are clipped to that range.
        """
        words = int(self.arrays["document_words"][index])
        end = words if end is None else end
        entities = None
        if self.arrays["document_entities"][index] >= 0:
            rows = self.arrays["entities"][self._entity_starts[index] : self._entity_starts[index + 1]]
            entities = [Entity(self.types[kind], first, last) for kind, first, last in _within(rows, start, end, words)]
        ranges = self.arrays["unannotated"][self._unannotated_starts[index] : self._unannotated_starts[index + 1]]
        return Annotation(end - start, entities, _within(ranges, start, end, words))

    def collate(self, features: Sequence[InputFeatures]) -> dict[str, torch.Tensor]:
        """Pad windows to the longest of the batch and encode their annotations as ``labels``.

        An empty batch, which a small step may leave for a rank or round, becomes one window without words.

        Returns:
            The result of `inputs`, and ``labels`` of shape ``(B, W, ...)`` as encoded by the head.
        """
        if not features:
            features = [replace(self[0], word_positions=np.empty(0, np.int32), annotation=Annotation(0, None))]
        batch = self.inputs(features)
        if self.encode is not None:
            batch["labels"] = self.encode([feature.annotation for feature in features])
        return batch

    def inputs(self, features: Sequence[InputFeatures]) -> dict[str, torch.Tensor]:
        """Pad windows to the longest of the batch, without labels.

        Returns:
            ``input_ids``, ``attention_mask``, ``token_type_ids`` of shape ``(B, T)``; ``word_positions``,
            ``word_mask`` of shape ``(B, W)``, always padded on the right.
        """
        B = len(features)
        T = max(len(feature.input_ids) for feature in features)
        W = max(1, *(len(feature.word_positions) for feature in features))
        input_ids = np.full((B, T), self.layout.pad_token, np.int64)
        token_type_ids = np.full((B, T), self.layout.pad_token_segment_id, np.int64)
        attention_mask = np.zeros((B, T), np.int64)
        word_positions = np.zeros((B, W), np.int64)
        word_mask = np.zeros((B, W), bool)
        for row, feature in enumerate(features):
            length, words = len(feature.input_ids), len(feature.word_positions)
            start = T - length if self.layout.pad_on_left else 0
            input_ids[row, start : start + length] = feature.input_ids
            token_type_ids[row, start : start + length] = feature.segment_ids
            attention_mask[row, start : start + length] = 1
            word_positions[row, :words] = feature.word_positions + start
            word_mask[row, :words] = True
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "token_type_ids": torch.from_numpy(token_type_ids),
            "word_positions": torch.from_numpy(word_positions),
            "word_mask": torch.from_numpy(word_mask),
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


def _within(rows: NDArray[np.int32], start: int, end: int, words: int) -> list[Any]:
    """Clip rows that end in a first and a last word to the words ``start`` to ``end``, relative to ``start``."""
    if end - start == words or not len(rows):
        return rows.tolist()
    inside = rows[(rows[:, -2] < end) & (rows[:, -1] >= start)].tolist()
    return [(*other, max(first - start, 0), min(last, end - 1) - start) for *other, first, last in inside]


def _starts(counts: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def _decoded(blob: NDArray[np.uint8], starts: NDArray[np.int64], index: int) -> str:
    return blob[starts[index] : starts[index + 1]].tobytes().decode("utf-8", "surrogatepass")
