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
from tools.arguments import NerArguments
from tools.distributed import is_main, rank, sum_over_ranks, world_size
from tools.precision import autocast

_DOCUMENTS_AT_ONCE = 2000  # bounds the emissions that are held
_WORDS_A_DECODING_BATCH = 8192


class TaggedDocument(NamedTuple):
    """Best tags ``(W,)`` of one document, and the loss of its gold tags, 0 where there are none."""

    document: int
    label_ids: NDArray[np.int64]
    loss: float


@torch.no_grad()
def tag_documents(args: NerArguments, model: Tagger, dataset: FeatureDataset, desc: str) -> Iterator[TaggedDocument]:
    """Tags all documents, in order; every rank computes a share of the windows and gets the whole result.

    The windows of a document are put back in order before decoding, so a text of any length gets one best path.
    """
    model.eval()
    with tqdm(total=dataset.num_documents, desc=desc, unit=" texts", disable=_hidden(), leave=False) as bar:
        for first in range(0, dataset.num_documents, _DOCUMENTS_AT_ONCE):
            last = min(first + _DOCUMENTS_AT_ONCE, dataset.num_documents)
            emissions = _stitched_emissions(args, model, dataset, dataset.windows_of(first, last))
            yield from _decoded_documents(model, dataset, emissions, first, last)
            bar.update(last - first)


def _hidden() -> bool:
    return not (is_main() and sys.stderr.isatty())


def _stitched_emissions(args: NerArguments, model: Tagger, dataset: FeatureDataset, windows: range) -> Tensor:
    """Emissions of all words that these windows own, in document order: ``(words, C)``."""
    word_counts = np.asarray(dataset.word_counts[windows.start : windows.stop], np.int64)
    first_words = np.concatenate(([0], np.cumsum(word_counts)))
    emissions = torch.zeros(int(first_words[-1]), model.classifier.out_features, device=args.device)
    by_length = windows.start + np.argsort(dataset.lengths[windows.start : windows.stop], kind="stable")
    batch_size = args.per_gpu_eval_batch_size * max(1, args.n_gpu)
    batches = [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]
    for batch in batches[rank() :: world_size()]:
        inputs = dataset.collate([dataset[int(window)] for window in batch])
        del inputs["labels"]
        inputs = {name: tensor.to(args.device, non_blocking=True) for name, tensor in inputs.items()}
        with autocast(args):
            logits = model(**inputs).logits.float()  # (B, W, C)
        owned = batch - windows.start
        rows = np.repeat(np.arange(len(batch)), word_counts[owned])
        columns = np.concatenate([np.arange(count) for count in word_counts[owned]])
        words = np.repeat(first_words[owned], word_counts[owned]) + columns
        emissions[torch.from_numpy(words)] = logits[torch.from_numpy(rows), torch.from_numpy(columns)]
    return sum_over_ranks(emissions)


def _decoded_documents(
    model: Tagger, dataset: FeatureDataset, emissions: Tensor, first: int, last: int
) -> Iterator[TaggedDocument]:
    lengths = np.asarray(dataset.arrays["document_words"][first:last], np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    tags: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(lengths)
    losses = np.zeros(len(lengths))
    for batch in _decoding_batches(lengths):
        W = int(lengths[batch].max())
        index = torch.from_numpy(np.minimum(starts[batch, None] + np.arange(W), len(emissions) - 1))  # (B, W)
        mask = torch.from_numpy(np.arange(W) < lengths[batch, None]).to(emissions.device)  # (B, W)
        logits = emissions[index.to(emissions.device)]  # (B, W, C)
        best = model.decode(logits, mask).cpu().numpy()
        for row, document in enumerate(batch):
            tags[document] = best[row, : lengths[document]]
        gold = np.zeros((len(batch), W), np.int64)
        for row, document in enumerate(batch):
            gold[row, : lengths[document]] = dataset.gold_label_ids(first + int(document))
        if (gold >= 0).all():
            losses[batch] = model.sequence_losses(logits, torch.from_numpy(gold).to(mask.device), mask).cpu().numpy()
    for document, (best_tags, loss) in enumerate(zip(tags, losses, strict=True)):
        yield TaggedDocument(first + document, best_tags, float(loss))


def _decoding_batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Documents that have words, grouped by length."""
    by_length = np.argsort(lengths, kind="stable")
    by_length = by_length[lengths[by_length] > 0]
    start = 0
    for end in range(1, len(by_length) + 1):
        if end == len(by_length) or (end + 1 - start) * lengths[by_length[end]] > _WORDS_A_DECODING_BATCH:
            yield by_length[start:end]
            start = end
