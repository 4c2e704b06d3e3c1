"""Best tags of whole documents: windows through the encoder, their emissions stitched, one decoding a document."""

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


def shared_batches(lengths: Sequence[int] | NDArray[np.int32], batch_size: int) -> list[NDArray[np.int64]]:
    """This rank's share of the batches of a split, each of items of like length.

    What makes up a batch does not depend on how many ranks there are, so neither does any bit of the scores.
    """
    by_length = np.argsort(lengths, kind="stable")
    batches = [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]
    return batches[rank() :: world_size()]


class GatheredScores:
    """One row of scores for each of the units that the items of a split consist of: words of windows, or the items.

    Args:
        counts: units of each item.
        num_columns: C, scores of a unit.
        device: where they are kept.
    """

    def __init__(self, counts: Sequence[int] | NDArray[np.int32], num_columns: int, device: torch.device) -> None:
        self._counts = np.asarray(counts, np.int64)
        self._starts = np.concatenate(([0], np.cumsum(self._counts)))
        self._scores = torch.zeros(int(self._starts[-1]), num_columns, device=device)

    def add(self, items: NDArray[np.int64], logits: Tensor) -> None:
        """Keeps what a batch of items scored, ``(B, W, C)``, or ``(B, C)`` where each item is one unit."""
        counts = self._counts[items]
        rows = np.repeat(np.arange(len(items)), counts)
        columns = np.concatenate([np.arange(count) for count in counts])
        places = np.repeat(self._starts[items], counts) + columns
        found = (logits if logits.ndim == 3 else logits.unsqueeze(1)).float()  # (B, W, C)
        self._scores[torch.from_numpy(places)] = found[torch.from_numpy(rows), torch.from_numpy(columns)]

    @property
    def of_this_rank(self) -> Tensor:
        """The rows that this rank scored, in the order of the items, and zeros for the others: ``(units, C)``."""
        return self._scores

    def over_ranks(self) -> Tensor:
        """The rows of all ranks, in the order of the items: ``(units, C)``; to be called once, by all."""
        return sum_over_ranks(self._scores)


_DOCUMENTS_AT_ONCE = 2000  # bounds the emissions that are held
_WORDS_A_DECODING_BATCH = 8192


class TaggedDocument(NamedTuple):
    """What a model finds in one document.

    Args:
        document: its number in the data set.
        tags: the tag of each word; where the head chooses none, those of the entities that tags can express.
        entities: what was found; they may overlap where the head allows it.
        confidences: of each entity; empty where they were not asked for.
        loss: of the gold tags, summed over words; 0 where there are none.
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
    """Tags all documents, in order; every rank computes a share of the windows and gets the whole result.

    The windows of a document are put back in order before decoding, so a text of any length gets one best path.
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
    """Indices of what is not empty, grouped by length; rows times the longest is at most ``size``, or it is one row."""
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
    """Emissions of all words that some windows own, in document order: ``(words, C)``.

    Args:
        windows: of whole documents.
        batches: places among these windows, this rank's share of them.
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
    """The best tags of documents from the emissions of their words, one decoding each, in order.

    Args:
        emissions: ``(words, C)`` of these documents.
        markup: tag scheme to write entities in, where the head chooses no tags.
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
    """The loss of what is annotated in each document, without words whose label the model lacks; 0 where nothing is."""
    annotations = [dataset.annotation(document) for document in documents]
    if any(annotation.entities is None for annotation in annotations):
        return [0.0] * len(documents)
    return model.losses(emissions, model.encode(annotations).to(mask.device), mask).tolist()
