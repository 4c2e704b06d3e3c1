"""Best tags of whole documents: windows through the encoder, their emissions stitched, one decoding a document."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.tagger import Tagger
from processors.feature_dataset import FeatureDataset
from processors.tag_schemes import Entity, tags_to_entities
from tools.arguments import NerArguments
from tools.confidence import entity_confidences
from tools.distributed import is_main
from tools.gathering import GatheredScores, shared_batches
from tools.precision import autocast

_DOCUMENTS_AT_ONCE = 2000  # bounds the emissions that are held
_WORDS_A_DECODING_BATCH = 8192


class TaggedDocument(NamedTuple):
    """What a model finds in one document.

    Args:
        document: its number in the data set.
        tags: the best tag of each word.
        entities: what the tags say.
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
    args: NerArguments, model: Tagger, dataset: FeatureDataset, desc: str, with_confidence: bool = False
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
            batches = shared_batches(lengths, args.per_gpu_eval_batch_size * max(1, args.n_gpu))
            with autocast(args):
                emissions = stitched_emissions(model, dataset, windows, batches, args.device).over_ranks()
            yield from decoded_documents(model, dataset, emissions, range(first, last), args.markup, with_confidence)
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
        inputs = dataset.collate([dataset[windows[int(place)]] for place in batch])
        del inputs["labels"]
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
        markup: tag scheme of the model's tags.
    """
    names = model.tag_names
    lengths = np.asarray(dataset.arrays["document_words"][documents.start : documents.stop], np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    found = [TaggedDocument(document, [], [], [], 0.0) for document in documents]
    for batch in batches_of_a_size(lengths, _WORDS_A_DECODING_BATCH):
        W = int(lengths[batch].max())
        index = torch.from_numpy(np.minimum(starts[batch, None] + np.arange(W), len(emissions) - 1))  # (B, W)
        mask = torch.from_numpy(np.arange(W) < lengths[batch, None]).to(emissions.device)  # (B, W)
        logits = emissions[index.to(emissions.device)]  # (B, W, C)
        best = model.decode(logits, mask).cpu().numpy()
        tags = [[names[tag] for tag in best[row, : lengths[document]]] for row, document in enumerate(batch)]
        entities = [tags_to_entities(row) for row in tags]
        confidences: list[list[float]] = [[] for _ in batch]
        if with_confidence:
            confidences = entity_confidences(model, logits, mask, entities, markup)
        losses = _gold_losses(model, dataset, logits, mask, [documents[document] for document in batch])
        for row, document in enumerate(batch):
            whole = TaggedDocument(documents[document], tags[row], entities[row], confidences[row], losses[row])
            found[document] = whole
    yield from found


def _gold_losses(
    model: Tagger, dataset: FeatureDataset, logits: Tensor, mask: Tensor, documents: list[int]
) -> list[float]:
    """The loss of each document's gold tags, without words whose tag the model does not have; 0 without labels."""
    gold = torch.zeros(mask.shape, dtype=torch.long)
    for row, document in enumerate(documents):
        labels = torch.from_numpy(dataset.gold_label_ids(document).astype(np.int64))
        gold[row, : len(labels)] = labels
    if (gold < 0).any():
        return [0.0] * len(documents)
    gold = gold.to(mask.device)
    known = gold < logits.size(-1)
    return model.sequence_losses(logits, gold.masked_fill(~known, 0), mask & known).tolist()
