"""Decode whole documents: encode windows, stitch their emissions, and run the head once per document."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from common.entities import Entity, outermost
from common.tag_schemes import MARKUPS, entities_to_tags
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from tools.distributed import is_main, rank, sum_over_ranks, world_size
from tools.run import Run

_DOCUMENTS_AT_ONCE = 2000  # bounds the memory of emissions
_WORDS_A_DECODING_BATCH = 8192


def shared_batches(lengths: Sequence[int] | NDArray[np.int32], batch_size: int) -> list[NDArray[np.int64]]:
    """Batch items of similar length, and return this rank's share of the batches.

    The content of a batch does not depend on the number of ranks, so scores are bit-identical for any number.
    """
    by_length = np.argsort(lengths, kind="stable")
    batches = [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]
    return batches[rank() :: world_size()]


class GatheredScores:
    """Scores of all units of a split: the words of its windows, or its items themselves.

    Args:
        counts: number of units per item.
        num_columns: C, scores per unit.
        device: device of the scores.
    """

    def __init__(self, counts: Sequence[int] | NDArray[np.int32], num_columns: int, device: torch.device) -> None:
        self._counts = np.asarray(counts, np.int64)
        self._starts = np.concatenate(([0], np.cumsum(self._counts)))
        self._scores = torch.zeros(int(self._starts[-1]), num_columns, device=device)

    def add(self, items: NDArray[np.int64], logits: Tensor) -> None:
        """Store the scores of a batch of items: ``(B, W, C)``, or ``(B, C)`` if each item is one unit."""
        counts = self._counts[items]
        rows = np.repeat(np.arange(len(items)), counts)
        columns = np.concatenate([np.arange(count) for count in counts])
        places = np.repeat(self._starts[items], counts) + columns
        found = (logits if logits.ndim == 3 else logits.unsqueeze(1)).float()  # (B, W, C)
        self._scores[torch.from_numpy(places)] = found[torch.from_numpy(rows), torch.from_numpy(columns)]

    @property
    def of_this_rank(self) -> Tensor:
        """Scores ``(units, C)`` in item order; zero for units that other ranks score."""
        return self._scores

    def over_ranks(self) -> Tensor:
        """Sum the scores ``(units, C)`` over ranks, in place. All ranks must call it, once."""
        return sum_over_ranks(self._scores)


class TaggedDocument(NamedTuple):
    """Prediction for one document.

    Args:
        document: index in the dataset.
        tags: one tag per word; if the head does not choose tags, those of the outermost entities.
        entities: predicted entities, which may overlap if the head allows it.
        confidences: one per entity; empty if not requested.
        loss: loss of the gold annotation, summed over words; 0 if there is none.
    """

    document: int
    tags: list[str]
    entities: list[Entity]
    confidences: list[float]
    loss: float


@torch.no_grad()
def tag_documents(
    run: Run, model: Tagger, dataset: FeatureDataset, desc: str, with_confidence: bool = False
) -> Iterator[TaggedDocument]:
    """Tag all documents, in order. Each rank encodes a share of the windows and gets the whole result.

    Windows are stitched before decoding, so a text of any length gets one best path.
    """
    model.eval()
    with tqdm(total=dataset.num_documents, desc=desc, unit=" texts", disable=_hidden(), leave=False) as bar:
        for first in range(0, dataset.num_documents, _DOCUMENTS_AT_ONCE):
            last = min(first + _DOCUMENTS_AT_ONCE, dataset.num_documents)
            windows = dataset.windows_of(first, last)
            lengths = dataset.lengths[windows.start : windows.stop]
            batches = shared_batches(lengths, run.settings.optimisation.per_gpu_eval_batch_size * max(1, run.n_gpu))
            with run.precision.autocast():
                emissions = stitched_emissions(model, dataset, windows, batches, run.device).over_ranks()
            yield from decoded_documents(model, dataset, emissions, range(first, last), run.markup, with_confidence)
            bar.update(last - first)


def _hidden() -> bool:
    return not (is_main() and sys.stderr.isatty())


def batches_of_a_size(lengths: NDArray[np.integer[Any]], size: int) -> list[NDArray[np.int64]]:
    """Group the indices of non-empty rows by length; a batch has at most ``size`` padded positions, or one row."""
    by_length = np.argsort(lengths, kind="stable")
    by_length = by_length[lengths[by_length] > 0]
    batches, start = [], 0
    for end in range(1, len(by_length) + 1):
        if end == len(by_length) or (end + 1 - start) * int(lengths[by_length[end]]) > size:
            batches.append(by_length[start:end])
            start = end
    return batches


def stitched_emissions(
    model: Tagger,
    dataset: FeatureDataset,
    windows: range,
    batches: Iterable[NDArray[np.int64]],
    device: torch.device,
) -> GatheredScores:
    """Compute the emissions ``(words, C)`` of all words that the windows own, in document order.

    Args:
        windows: range of windows, which covers whole documents.
        batches: this rank's batches, as indices into ``windows``.
    """
    scores = GatheredScores(dataset.word_counts[windows.start : windows.stop], model.classifier.out_features, device)
    for batch in batches:
        inputs = dataset.inputs([dataset[windows[int(place)]] for place in batch])
        if inputs["attention_mask"].all():  # attention is faster without a mask
            del inputs["attention_mask"]
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
        scores.add(batch, model(**inputs).logits)  # (B, W, C)
    return scores


def decoded_documents(
    model: Tagger,
    dataset: FeatureDataset,
    emissions: Tensor,
    documents: range,
    markup: str,
    with_confidence: bool = False,
) -> Iterator[TaggedDocument]:
    """Decode documents from the emissions of their words, in order.

    Args:
        emissions: ``(words, C)`` of these documents.
        documents: indices in the dataset.
        markup: tag scheme for entities of heads that do not choose tags.
    """
    lengths = np.asarray(dataset.arrays["document_words"][documents.start : documents.stop], np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    found = [TaggedDocument(document, [], [], [], 0.0) for document in documents]
    for batch in batches_of_a_size(lengths, _WORDS_A_DECODING_BATCH):
        W = int(lengths[batch].max())
        index = torch.from_numpy(np.minimum(starts[batch, None] + np.arange(W), len(emissions) - 1))  # (B, W)
        mask = torch.from_numpy(np.arange(W) < lengths[batch, None]).to(emissions.device)  # (B, W)
        rows = emissions[index.to(emissions.device)]  # (B, W, C)
        losses = _gold_losses(model, dataset, rows, mask, [documents[document] for document in batch])
        predictions = model.predict(rows, mask, with_confidence)
        for document, prediction, loss in zip(batch, predictions, losses, strict=True):
            tags = prediction.tags or _outermost_tags(prediction.entities, int(lengths[document]), markup)
            entities, confidences = prediction.entities, prediction.confidences
            found[document] = TaggedDocument(documents[document], tags, entities, confidences, loss)
    yield from found


def _outermost_tags(entities: Sequence[Entity], words: int, markup: str) -> list[str]:
    return entities_to_tags(outermost(entities), words, MARKUPS[markup])


def _gold_losses(
    model: Tagger, dataset: FeatureDataset, emissions: Tensor, mask: Tensor, documents: list[int]
) -> list[float]:
    """Compute the loss per document, ignoring words whose label the model lacks; 0 if a document is not annotated."""
    annotations = [dataset.annotation(document) for document in documents]
    if any(annotation.entities is None for annotation in annotations):
        return [0.0] * len(documents)
    return model.losses(emissions, model.encode(annotations).to(mask.device), mask).tolist()
