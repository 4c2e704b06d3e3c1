"""Features as flat arrays, in memory or mapped from disk, and the data set that reads windows from them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from common.entities import Annotation, Entity, in_text_order
from processors.features.windows import SequenceLayout

_OF_CONTEXTS = 1  # beside seed and epoch, which the order of the data is drawn from
Encode = Callable[[Sequence[Annotation]], torch.Tensor]


class _Kind(NamedTuple):
    """An array: its type, its columns if it is two-dimensional, and the array with the number of rows of each item."""

    dtype: type[np.generic]
    columns: int = 1
    counted_by: str = ""


_KINDS = {
    "input_ids": _Kind(np.int32, 1, "window_tokens"),  # tokens of all windows, concatenated
    "casings": _Kind(np.uint8, 1, "window_tokens"),  # of the word of each token; empty if the layout does not use them
    "word_positions": _Kind(np.int32, 1, "window_words"),  # index of the first piece of each word in its window
    "offsets": _Kind(np.int32, 2, "document_words"),  # characters of each word in the text of its document
    "window_tokens": _Kind(np.int32),
    "window_contexts": _Kind(np.int32, 2),  # tokens of neighbouring sentences before and after the own one
    "window_words": _Kind(np.int32),  # words that each window owns
    "window_ends": _Kind(np.int32),  # index after the last word piece of the last of these words
    "document_windows": _Kind(np.int32),
    "document_words": _Kind(np.int32),
    "document_entities": _Kind(np.int32),  # number of entities; -1 if the document is not annotated
    "entities": _Kind(np.int32, 3, "document_entities"),  # type, first and last word in the document, in text order
    "document_unannotated": _Kind(np.int32),
    "unannotated": _Kind(np.int32, 2, "document_unannotated"),  # first and last word of each range
    "text_bytes": _Kind(np.int32),
    "complete_bytes": _Kind(np.int32),
    "guid_bytes": _Kind(np.int32),
    "source_bytes": _Kind(np.int32),
    "texts": _Kind(np.uint8, 1, "text_bytes"),  # UTF-8 of all documents
    "guids": _Kind(np.uint8, 1, "guid_bytes"),
    "sources": _Kind(np.uint8, 1, "source_bytes"),  # names of the documents that texts are sentences of
    "completes": _Kind(np.uint8, 1, "complete_bytes"),  # JSON list of the types annotated completely; empty: all
}


@dataclass
class InputFeatures:
    """One window, without padding.

    Args:
        input_ids: ``(T,)`` tokens, including special tokens.
        segment_ids: ``(T,)`` token types.
        word_positions: ``(W,)`` index of the first word piece of each owned word in ``input_ids``.
        word_lengths: ``(W,)`` number of its word pieces.
        annotation: annotation of the owned words; entities are clipped to the window.
        document: index of the document.
        first_word: index of the first owned word in the document.
    """

    input_ids: NDArray[np.int32]
    segment_ids: NDArray[np.int64]
    word_positions: NDArray[np.int32]
    word_lengths: NDArray[np.int32]
    annotation: Annotation
    document: int
    first_word: int


@dataclass(frozen=True)
class Document:
    """One text, the character offsets ``(W, 2)`` of its words, and its annotation.

    ``source`` is the name of the document that the text is a sentence of, or empty.
    """

    guid: str
    text: str
    offsets: NDArray[np.int32]
    annotation: Annotation
    source: str = ""

    @property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.offsets]


class FeatureArrays(dict[str, NDArray[Any]]):
    """The arrays by name, described at ``_KINDS``."""

    @staticmethod
    def mapped(folder: Path) -> "FeatureArrays":
        """Memory-map arrays on disk."""
        arrays = FeatureArrays()
        for name, kind in _KINDS.items():
            path = folder / f"{name}.bin"
            empty = path.stat().st_size == 0
            flat: NDArray[Any] = np.empty(0, kind.dtype) if empty else np.asarray(np.memmap(path, kind.dtype, mode="r"))
            arrays[name] = _shaped(flat, kind)
        return arrays

    def append_to(self, folder: Path) -> None:
        """Append these arrays to those on disk."""
        for name, kind in _KINDS.items():
            with (folder / f"{name}.bin").open("ab") as file:
                file.write(np.ascontiguousarray(self[name], kind.dtype).tobytes())


class FeatureCollector:
    """Collects windows and documents and concatenates their arrays."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Any]] = {name: [] for name in _KINDS}

    def add_window(
        self,
        input_ids: NDArray[np.int32],
        casings: NDArray[np.uint8],
        word_positions: NDArray[np.int64],
        end: int,
        context: tuple[int, int] = (0, 0),
    ) -> None:
        self._add(
            input_ids=input_ids,
            window_tokens=[len(input_ids)],
            casings=casings,
            word_positions=word_positions,
            window_ends=[end],
            window_contexts=context,
        )

    def add_document(
        self,
        guid: str,
        text: str,
        offsets: Sequence[tuple[int, int]],
        annotation: Annotation,
        type_ids: Mapping[str, int],
        windows: int,
        source: str = "",
    ) -> None:
        self._add(
            guids=np.frombuffer(guid.encode("utf-8", "surrogatepass"), np.uint8),
            sources=np.frombuffer(source.encode("utf-8", "surrogatepass"), np.uint8),
            texts=np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8),
            offsets=offsets,  # of a text to predict they may be left out
            document_words=[annotation.words],
            entities=[(type_ids[one.type], *one[1:]) for one in in_text_order(annotation.entities or ())],
            document_entities=[-1 if annotation.entities is None else len(set(annotation.entities))],
            unannotated=annotation.unannotated,
            completes=_encoded_types(annotation.complete),
            document_windows=[windows],
        )

    def _add(self, **parts: Any) -> None:
        for name, part in parts.items():
            kind = _KINDS[name]
            self._parts[name].append(_shaped(np.asarray(part, kind.dtype), kind))
            if kind.counted_by and kind.counted_by not in parts:
                self._parts[kind.counted_by].append([len(part)])

    def concatenated(self) -> FeatureArrays:
        arrays = FeatureArrays()
        for name, kind in _KINDS.items():
            parts = [_shaped(np.empty(0, kind.dtype), kind), *self._parts[name]]
            arrays[name] = np.concatenate(parts, dtype=kind.dtype)
        return arrays


def _shaped(array: NDArray[Any], kind: _Kind) -> NDArray[Any]:
    return array.reshape(-1, kind.columns) if kind.columns > 1 else array


class FeatureDataset(Dataset[InputFeatures]):
    """The windows of a corpus by index, and its documents with texts and gold entities.

    Args:
        arrays: see `FeatureArrays`.
        layout: special tokens and padding.
        types: entity types, in the order of their ids in the arrays.
        encode: makes the labels of a batch from the annotations of its windows; without it batches have no labels.

    ``begin_epoch`` draws which windows lose the neighbouring sentences that they show.
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
        counts = {"document_windows", *(kind.counted_by for kind in _KINDS.values() if kind.counted_by)}
        self._starts = {name: _starts(np.maximum(arrays[name], 0)) for name in counts}
        self.weights: NDArray[np.float64] | None = None  # how often each window is seen in an epoch; `None`: once
        self._bare: NDArray[np.bool_] | None = None  # windows without their context
        self._lengths = arrays["window_tokens"]

    def __len__(self) -> int:
        return len(self.arrays["window_tokens"])

    def __getitem__(self, index: int) -> InputFeatures:
        if not 0 <= index < len(self):
            raise IndexError(index)
        word_positions = self._part("word_positions", index)
        left, right = self.arrays["window_contexts"][index].tolist() if self._is_bare(index) else (0, 0)
        document = int(np.searchsorted(self._starts["document_windows"], index, side="right")) - 1
        first_word = int(self._starts["window_words"][index] - self._starts["document_words"][document])
        return InputFeatures(
            input_ids=self._without_context(self._part("input_ids", index), left, right),
            segment_ids=self._without_context(self._segment_ids(index), left, right),
            word_positions=word_positions - left,
            word_lengths=np.diff(word_positions, append=self.arrays["window_ends"][index]),
            annotation=self.annotation(document, first_word, first_word + len(word_positions)),
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
        return int(self._starts["document_words"][-1])

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each window in this epoch, ``(windows,)``."""
        return self._lengths

    def begin_epoch(self, epoch: int, context_dropout: float, seed: int) -> NDArray[np.int32]:
        """Draw the windows that are shown without their context, and return the ``lengths`` of all.

        The draw depends on the arguments only, so that ranks, workers and resumed runs agree.

        Args:
            context_dropout: probability of a window to lose its context.
        """
        self._bare = np.random.default_rng((seed, epoch, _OF_CONTEXTS)).random(len(self)) < context_dropout
        contexts = self.arrays["window_contexts"].sum(1, dtype=np.int32)
        self._lengths = self.arrays["window_tokens"] - np.where(self._bare, contexts, 0)
        return self._lengths

    @property
    def word_counts(self) -> NDArray[np.int32]:
        """Words that each window owns, ``(windows,)``."""
        return self.arrays["window_words"]

    def windows_of(self, first: int, last: int) -> range:
        """Indices of the windows of the documents ``first`` to ``last`` (exclusive)."""
        starts = self._starts["document_windows"]
        return range(int(starts[first]), int(starts[last]))

    def joined(self, more: FeatureArrays) -> "FeatureDataset":
        """This dataset, followed by the windows and documents of other arrays with the same types and layout."""
        arrays = FeatureArrays({name: np.concatenate((self.arrays[name], more[name])) for name in _KINDS})
        return FeatureDataset(arrays, self.layout, self.types, self.encode)

    def document(self, index: int) -> Document:
        encoded = (self._part(name, index).tobytes() for name in ("guids", "texts", "sources"))
        guid, text, source = (raw.decode("utf-8", "surrogatepass") for raw in encoded)
        return Document(guid, text, self._part("offsets", index), self.annotation(index), source)

    def annotation(self, index: int, start: int = 0, end: int | None = None) -> Annotation:
        """Annotation of a document, or of its words ``start`` to ``end`` (exclusive), indexed relative to ``start``.

        Entities are clipped to that range.
        """
        words = int(self.arrays["document_words"][index])
        end = words if end is None else end
        entities = None
        if self.arrays["document_entities"][index] >= 0:
            rows = self._part("entities", index)
            entities = [Entity(self.types[kind], first, last) for kind, first, last in _within(rows, start, end, words)]
        ranges = _within(self._part("unannotated", index), start, end, words)
        complete = None
        if len(self.arrays["completes"]):  # of few datasets
            complete = _decoded_types(self._part("completes", index).tobytes())
        return Annotation(end - start, entities, [(first, last) for first, last in ranges], complete)

    def collate(self, features: Sequence[InputFeatures]) -> dict[str, torch.Tensor]:
        """Pad windows to the longest of the batch and encode their annotations as ``labels``.

        An empty batch, which a small step may leave for a rank or round, becomes one window without words.

        Returns:
            The result of `inputs`, and ``labels`` of shape ``(B, W, ...)`` as encoded by the head.
        """
        if not features:
            none = np.empty(0, np.int32)
            features = [replace(self[0], word_positions=none, word_lengths=none, annotation=Annotation(0, None))]
        batch = self.inputs(features)
        if self.encode is not None:
            batch["labels"] = self.encode([feature.annotation for feature in features])
        return batch

    def inputs(self, features: Sequence[InputFeatures]) -> dict[str, torch.Tensor]:
        """Pad windows to the longest of the batch, without labels.

        Returns:
            ``input_ids``, ``attention_mask``, ``token_type_ids`` of shape ``(B, T)``; ``word_positions``,
            ``word_lengths``, ``word_mask`` of shape ``(B, W)``, always padded on the right.
        """
        T = max(len(feature.input_ids) for feature in features)
        W = max(1, *(len(feature.word_positions) for feature in features))
        layout, on_left = self.layout, self.layout.pad_on_left
        ids = [feature.input_ids for feature in features]
        segments = [feature.segment_ids for feature in features]
        shifts = [T - len(row) if on_left else 0 for row in ids]
        positions = [feature.word_positions + shift for feature, shift in zip(features, shifts, strict=True)]
        return {
            "input_ids": _padded(ids, T, layout.pad_token, on_left),
            "attention_mask": _padded([np.ones_like(row) for row in ids], T, 0, on_left),
            "token_type_ids": _padded(segments, T, layout.pad_token_segment_id, on_left),
            "word_positions": _padded(positions, W, 0),
            "word_lengths": _padded([feature.word_lengths for feature in features], W, 0),
            "word_mask": _padded([np.ones_like(row) for row in positions], W, 0).bool(),
        }

    def _part(self, name: str, index: int) -> NDArray[Any]:
        """The rows of an array that belong to one window or document."""
        starts = self._starts[_KINDS[name].counted_by]
        return self.arrays[name][starts[index] : starts[index + 1]]

    def _is_bare(self, index: int) -> bool:
        return self._bare is not None and bool(self._bare[index])

    def _without_context(self, tokens: NDArray[Any], left: int, right: int) -> NDArray[Any]:
        """Cut the context from the tokens of a window."""
        if not left and not right:
            return tokens
        before, after = len(self.layout.before), len(tokens) - len(self.layout.after)
        return np.concatenate((tokens[:before], tokens[before + left : after - right], tokens[after:]))

    def _segment_ids(self, index: int) -> NDArray[np.int64]:
        layout, count = self.layout, int(self.arrays["window_tokens"][index])
        if layout.casing_segments:
            segments = np.array(layout.casing_segments, np.int64)[self._part("casings", index)]
        else:
            segments = np.full(count, layout.segment, np.int64)
        segments[: len(layout.before)] = layout.before_segments
        segments[count - len(layout.after) :] = layout.after_segments
        return segments


def _padded(rows: Sequence[NDArray[Any]], length: int, padding: int, on_left: bool = False) -> torch.Tensor:
    padded = np.full((len(rows), length), padding, np.int64)
    for place, row in zip(padded, rows, strict=True):
        start = length - len(row) if on_left else 0
        place[start : start + len(row)] = row
    return torch.from_numpy(padded)


def _within(rows: NDArray[np.int32], start: int, end: int, words: int) -> list[Any]:
    """Clip rows that end in a first and a last word to the words ``start`` to ``end``, relative to ``start``."""
    if end - start == words or not len(rows):
        return rows.tolist()
    inside = rows[(rows[:, -2] < end) & (rows[:, -1] >= start)].tolist()
    return [(*other, max(first - start, 0), min(last, end - 1) - start) for *other, first, last in inside]


def _encoded_types(types: frozenset[str] | None) -> NDArray[np.uint8]:
    encoded = b"" if types is None else json.dumps(sorted(types)).encode()
    return np.frombuffer(encoded, np.uint8)


@lru_cache(maxsize=256)
def _decoded_types(encoded: bytes) -> frozenset[str] | None:
    return frozenset(json.loads(encoded)) if encoded else None


def _starts(counts: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
