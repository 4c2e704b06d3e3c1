"""Best tags of whole documents: windows through the encoder, their emissions stitched, one decoding a document."""

import sys
from collections.abc import Iterator
from typing import NamedTuple

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
            emissions = _stitched_emissions(args, model, dataset, dataset.windows_of(first, last))
            yield from decoded_documents(args, model, dataset, emissions, range(first, last), with_confidence)
            bar.update(last - first)


def _hidden() -> bool:
    return not (is_main() and sys.stderr.isatty())


def _stitched_emissions(args: NerArguments, model: Tagger, dataset: FeatureDataset, windows: range) -> Tensor:
    """Emissions of all words that these windows own, in document order: ``(words, C)``."""
    own = slice(windows.start, windows.stop)
    scores = GatheredScores(dataset.word_counts[own], model.classifier.out_features, args.device)
    for batch in shared_batches(dataset.lengths[own], args.per_gpu_eval_batch_size * max(1, args.n_gpu)):
        inputs = dataset.collate([dataset[windows[int(window)]] for window in batch])
        del inputs["labels"]
        inputs = {name: tensor.to(args.device, non_blocking=True) for name, tensor in inputs.items()}
        with autocast(args):
            logits = model(**inputs).logits  # (B, W, C)
        scores.add(batch, logits)
    return scores.over_ranks()


def decoded_documents(
    args: NerArguments,
    model: Tagger,
    dataset: FeatureDataset,
    emissions: Tensor,
    documents: range,
    with_confidence: bool = False,
) -> Iterator[TaggedDocument]:
    """Tags documents whose emissions are there, put back in order: ``(words, C)``."""
    names = model.tag_names
    lengths = np.asarray(dataset.arrays["document_words"][documents.start : documents.stop], np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    found = [TaggedDocument(document, [], [], [], 0.0) for document in documents]
    for batch in _decoding_batches(lengths):
        W = int(lengths[batch].max())
        index = torch.from_numpy(np.minimum(starts[batch, None] + np.arange(W), len(emissions) - 1))  # (B, W)
        mask = torch.from_numpy(np.arange(W) < lengths[batch, None]).to(emissions.device)  # (B, W)
        logits = emissions[index.to(emissions.device)]  # (B, W, C)
        best = model.decode(logits, mask).cpu().numpy()
        tags = [[names[tag] for tag in best[row, : lengths[document]]] for row, document in enumerate(batch)]
        entities = [tags_to_entities(row) for row in tags]
        confidences: list[list[float]] = [[] for _ in batch]
        if with_confidence:
            confidences = entity_confidences(model, logits, mask, entities, args.markup)
        losses = _gold_losses(model, dataset, logits, mask, [documents[document] for document in batch])
        for row, document in enumerate(batch):
            whole = TaggedDocument(documents[document], tags[row], entities[row], confidences[row], losses[row])
            found[document] = whole
    yield from found


def _gold_losses(
    model: Tagger, dataset: FeatureDataset, logits: Tensor, mask: Tensor, documents: list[int]
) -> list[float]:
    """The loss of each document's gold tags; 0 where the documents are not labelled."""
    gold = torch.zeros(mask.shape, dtype=torch.long)
    for row, document in enumerate(documents):
        labels = torch.from_numpy(dataset.gold_label_ids(document).astype(np.int64))
        gold[row, : len(labels)] = labels
    if (gold < 0).any():
        return [0.0] * len(documents)
    return model.sequence_losses(logits, gold.to(mask.device), mask).tolist()


def _decoding_batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Documents that have words, grouped by length."""
    by_length = np.argsort(lengths, kind="stable")
    by_length = by_length[lengths[by_length] > 0]
    start = 0
    for end in range(1, len(by_length) + 1):
        if end == len(by_length) or (end + 1 - start) * lengths[by_length[end]] > _WORDS_A_DECODING_BATCH:
            yield by_length[start:end]
            start = end
