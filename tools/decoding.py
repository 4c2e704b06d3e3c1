"""Decode whole documents: encode windows, stitch their emissions, and run the head once per document."""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from analysis.dial import LEAST
from common.entities import Entity, outermost, text_order
from common.tag_schemes import MARKUPS, entities_to_tags
from models.recalibration import Recalibration
from models.tagger import Prediction, Tagger
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


class TaggedDocument(NamedTuple):
    """Prediction for one document.

    Args:
        document: index in the dataset.
        tags: one tag per word; if the head does not choose tags, those of the outermost entities.
        entities: predicted entities, which may overlap if the head allows it.
        confidences: one per entity; empty if not requested.
        candidates: all entities of at least the requested probability, with their probabilities, in text order; empty
            if not requested.
        loss: loss of the gold annotation, summed over words; 0 if there is none.
    """

    document: int
    tags: list[str]
    entities: list[Entity]
    confidences: list[float]
    loss: float
    candidates: Sequence[tuple[Entity, float]] = ()


def tag_documents(
    run: Run,
    model: Tagger,
    dataset: FeatureDataset,
    desc: str,
    with_confidence: bool = False,
    least: float | None = None,
) -> Iterator[TaggedDocument]:
    """Tag all documents, in order. Each rank encodes a share of the windows and gets the whole result.

    Windows are stitched before decoding, so a text of any length gets one best path.

    Args:
        least: probability from which entities are candidates; ``None``: no candidates.
    """
    for emissions, documents in encoded_documents(run, model, dataset, desc):
        yield from decoded_documents(model, dataset, emissions, documents, run.markup, with_confidence, least)


@torch.no_grad()
def encoded_documents(run: Run, model: Tagger, dataset: FeatureDataset, desc: str) -> Iterator[tuple[Tensor, range]]:
    """Yield the emissions ``(words, C)`` of some documents, and the indices of these documents, in order."""
    model.eval()
    hidden = not (is_main() and sys.stderr.isatty())
    with tqdm(total=dataset.num_documents, desc=desc, unit=" texts", disable=hidden, leave=False) as bar:
        for first in range(0, dataset.num_documents, _DOCUMENTS_AT_ONCE):
            last = min(first + _DOCUMENTS_AT_ONCE, dataset.num_documents)
            windows = dataset.windows_of(first, last)
            lengths = dataset.lengths[windows.start : windows.stop]
            batches = shared_batches(lengths, run.settings.optimisation.per_gpu_eval_batch_size * max(1, run.n_gpu))
            with run.precision.autocast():
                emissions = sum_over_ranks(stitched_emissions(model, dataset, windows, batches, run.device))
            yield emissions, range(first, last)
            bar.update(last - first)


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
) -> Tensor:
    """Compute the emissions ``(words, C)`` of all words that the windows own, in document order.

    Args:
        windows: range of windows, which covers whole documents.
        batches: this rank's batches, as indices into ``windows``; the words of other windows score zero.
    """
    ends = np.cumsum(dataset.word_counts[windows.start : windows.stop], dtype=np.int64)
    starts = np.concatenate(([0], ends))
    scores = torch.zeros(int(starts[-1]), model.num_scores(model.config), device=device)
    for batch in batches:
        inputs = dataset.inputs([dataset[windows[int(place)]] for place in batch])
        rows, columns = inputs["word_mask"].nonzero(as_tuple=True)  # here, where no device has to be waited for
        if inputs["attention_mask"].all():  # attention is faster without a mask
            del inputs["attention_mask"]
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
        places = np.concatenate([np.arange(starts[window], ends[window]) for window in batch])
        scores[torch.from_numpy(places)] = model(**inputs).logits.float()[rows, columns]  # (words, C)
    return scores


class DocumentBatch(NamedTuple):
    """Documents of similar length: emissions ``(B, W, C)``, mask ``(B, W)``, indices in the dataset."""

    emissions: Tensor
    word_mask: Tensor
    documents: list[int]


def padded_batches(dataset: FeatureDataset, emissions: Tensor, documents: range) -> Iterator[DocumentBatch]:
    """Batch the documents that have words.

    Args:
        emissions: ``(words, C)`` of these documents.
        documents: indices in the dataset.
    """
    lengths = np.asarray(dataset.arrays["document_words"][documents.start : documents.stop], np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    for batch in batches_of_a_size(lengths, _WORDS_A_DECODING_BATCH):
        W = int(lengths[batch].max())
        index = torch.from_numpy(np.minimum(starts[batch, None] + np.arange(W), len(emissions) - 1))  # (B, W)
        mask = torch.from_numpy(np.arange(W) < lengths[batch, None]).to(emissions.device)  # (B, W)
        yield DocumentBatch(emissions[index.to(emissions.device)], mask, [documents[place] for place in batch])


@torch.no_grad()
def decoded_documents(
    model: Tagger,
    dataset: FeatureDataset,
    emissions: Tensor,
    documents: range,
    markup: str,
    with_confidence: bool = False,
    least: float | None = None,
    thresholds: "Thresholds | None" = None,
    words: Sequence[Sequence[str]] | None = None,
) -> Iterator[TaggedDocument]:
    """Decode documents from the emissions of their words, in order.

    Args:
        emissions: ``(words, C)`` of these documents.
        documents: indices in the dataset.
        markup: tag scheme for entities of heads that do not choose tags.
        least: probability from which entities are candidates; ``None``: no candidates.
        thresholds: predict candidates; ``None``: what the head predicts.
        words: words of all documents of the dataset if it does not have their texts.
    """
    found = [TaggedDocument(document, [], [], [], 0.0) for document in documents]
    recalibrates = Recalibration.of(model.config) is not None
    for batch in padded_batches(dataset, emissions, documents):
        rows, mask = batch.emissions, batch.word_mask
        losses = [0.0] * len(rows)  # unless all are annotated; words whose label the model lacks do not count
        annotations = [dataset.annotation(document) for document in batch.documents]
        if not any(annotation.entities is None for annotation in annotations):
            losses = model.losses(rows, model.encode(annotations).to(mask.device), mask).tolist()
            # Where scores are not numbers, the loss shows it, and training must go on: a search would raise an error.
            rows = torch.where(rows < torch.inf, rows, 0.0)
        texts: list[Sequence[str]] = []
        if recalibrates:
            texts = [dataset.document(one).words if words is None else words[one] for one in batch.documents]
        candidates = [[]] * len(rows) if least is None else probable_entities(model, rows, mask, texts, least)
        if thresholds is not None:
            predictions = thresholds.choose(model, rows, mask, texts)
        else:
            predictions = predicted_entities(model, rows, mask, texts, with_confidence)
        for document, prediction, loss, probable in zip(batch.documents, predictions, losses, candidates, strict=True):
            entities, confidences = prediction.entities, prediction.confidences
            count = int(dataset.arrays["document_words"][document])
            tags = prediction.tags or entities_to_tags(outermost(entities), count, MARKUPS[markup])
            found[document - documents.start] = TaggedDocument(document, tags, entities, confidences, loss, probable)
    yield from found


def predicted_entities(
    model: Tagger, emissions: Tensor, word_mask: Tensor, texts: Sequence[Sequence[str]], with_confidence: bool = True
) -> list[Prediction]:
    """Predict, and correct the confidences if `tools.calibrate` has found how.

    Args:
        texts: the words of each row; not read if nothing is corrected.
    """
    predictions = model.predict(emissions, word_mask, with_confidence)
    if not with_confidence or (recalibration := Recalibration.of(model.config)) is None:
        return predictions
    return [
        one._replace(confidences=recalibration(words, one.entities, one.confidences))
        for words, one in zip(texts, predictions, strict=True)
    ]


def probable_entities(
    model: Tagger, emissions: Tensor, word_mask: Tensor, texts: Sequence[Sequence[str]], least: float
) -> list[list[tuple[Entity, float]]]:
    """Find candidates of at least this probability, corrected as in `predicted_entities`."""
    recalibration = Recalibration.of(model.config)
    if recalibration is None:
        return model.candidates(emissions, word_mask, least)
    found = list[list[tuple[Entity, float]]]()
    rows = model.candidates(emissions, word_mask, recalibration.least_before(least))
    for words, row in zip(texts, rows, strict=True):
        entities = [entity for entity, _ in row]
        values = recalibration(words, entities, [value for _, value in row])
        found.append([one for one in zip(entities, values, strict=True) if one[1] >= least])
    return found


class Thresholds(NamedTuple):
    """Which candidates are entities, instead of the prediction of the head.

    Args:
        by_type: least probability of each type.
        overlapping: give all of them; otherwise those that contradict no more probable candidate of any type.
    """

    by_type: Mapping[str, float]
    overlapping: bool = False

    def choose(
        self, model: Tagger, emissions: Tensor, word_mask: Tensor, texts: Sequence[Sequence[str]]
    ) -> list[Prediction]:
        """The entities of rows with these words."""
        lowest = min(self.by_type.values(), default=1.0)
        least = lowest if self.overlapping else min(lowest, LEAST)
        chosen = []
        for row in probable_entities(model, emissions, word_mask, texts, least):
            candidates = row if self.overlapping else compatible_candidates(model, row)
            found = [one for one in candidates if one[1] >= self.by_type.get(one[0].type, math.inf)]
            found.sort(key=lambda one: text_order(one[0]))
            chosen.append(Prediction([entity for entity, _ in found], [value for _, value in found]))
        return chosen


def compatible_candidates(model: Tagger, candidates: Sequence[tuple[Entity, float]]) -> list[tuple[Entity, float]]:
    """Leave out candidates that contradict a more probable one; most probable first."""
    probabilities = dict(candidates)
    most_probable_first = sorted(probabilities, key=lambda one: -probabilities[one])
    return [(one, probabilities[one]) for one in model.compatible(most_probable_first)]
