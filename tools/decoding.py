"""Best tags of whole documents: windows through the encoder, their emissions stitched, one decoding a document."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from common.entities import Entity
from common.tag_schemes import (
    MARKUPS,
    OUTSIDE,
    SCHEMES,
    TagScheme,
    begins_entity,
    entities_to_tags,
    split_tag,
    tag_set,
    tags_to_entities,
)
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from tools.arguments import NerArguments
from tools.distributed import is_main, rank, sum_over_ranks, world_size
from tools.precision import autocast


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


_SPANS_AT_ONCE = 4096  # bounds the memory that spans take; every call walks the whole lattice once


def entity_confidences(
    model: Tagger, logits: Tensor, word_mask: Tensor, entities: Sequence[Sequence[Entity]], markup: str
) -> list[list[float]]:
    """Confidences of the entities of each row, exact under the model: from the CRF's lattice, or the softmax.

    It is the probability that the span's words have the entity's well-formed tags and that the word after it does not
    continue it. Where the model's tags are not all those of a scheme, any count that read as the entity.

    Args:
        logits, word_mask: ``(B, W, C)`` and ``(B, W)``.
        entities: of each of the B rows.
        markup: tag scheme of the model's tags, where they fit several.
    """
    places = [(row, entity) for row, found in enumerate(entities) for entity in found]
    flat: list[float] = []
    for start in range(0, len(places), _SPANS_AT_ONCE):
        some = places[start : start + _SPANS_AT_ONCE]
        tensors = _span_tensors(some, model.tag_names, markup)
        flat += model.span_confidences(logits, word_mask, *(tensor.to(logits.device) for tensor in tensors)).tolist()
    ends = np.cumsum([len(found) for found in entities])
    return [flat[end - len(found) : end] for end, found in zip(ends, entities, strict=True)]


def _span_tensors(
    places: Sequence[tuple[int, Entity]], tag_names: list[str], markup: str
) -> tuple[Tensor, Tensor, Tensor]:
    """``spans (N, 3)``, ``inside (N, L, C)`` and ``after (N, C)`` as `models.tagger.Tagger` takes them."""
    ids = {tag: index for index, tag in enumerate(tag_names)}
    scheme = _scheme_of(tag_names, markup)
    longest = max(entity.words for _, entity in places)
    inside = torch.zeros(len(places), longest, len(ids), dtype=torch.bool)
    after = torch.zeros(len(places), len(ids), dtype=torch.bool)
    for index, (_, entity) in enumerate(places):
        length = entity.words
        if scheme is not None:
            tags = [[tag] for tag in entities_to_tags([Entity(entity.type, 0, length - 1)], length, scheme)]
        else:
            tags = _readable_tags(entity.type, length, tag_names)
        for word, choice in enumerate(tags):
            inside[index, word, [ids[tag] for tag in choice]] = True
        after[index] = torch.tensor(
            [tag == OUTSIDE or all(begins_entity(last, tag) for last in tags[-1]) for tag in tag_names]
        )
    spans = torch.tensor([(row, entity.first_word, entity.last_word) for row, entity in places])
    return spans, inside, after


def _scheme_of(tag_names: list[str], markup: str) -> TagScheme | None:
    """The scheme that these are all tags of, be it not one that we train; none for those that lack a tag."""
    types = {split_tag(tag)[1] for tag in tag_names if tag != OUTSIDE}
    schemes = (MARKUPS[markup], *SCHEMES.values())
    return next((scheme for scheme in schemes if set(tag_set(types, scheme)) == set(tag_names)), None)


def _readable_tags(entity_type: str, length: int, tag_names: list[str]) -> list[list[str]]:
    """For each word of an entity the tags with which ``conlleval`` would read it so."""
    own = [tag for tag in tag_names if tag != OUTSIDE and split_tag(tag)[1] == entity_type]
    if length == 1:
        return [own]
    first = [tag for tag in own if not all(begins_entity(tag, following) for following in own)]
    last = [tag for tag in own if not all(begins_entity(previous, tag) for previous in own)]
    return [first, *[[tag for tag in first if tag in last]] * (length - 2), last]


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
    """The loss of each document's gold tags, without words whose tag the model does not have; 0 without annotation."""
    annotations = [dataset.annotation(document) for document in documents]
    if dataset.encode is None or any(annotation.entities is None for annotation in annotations):
        return [0.0] * len(documents)
    gold = dataset.encode(annotations).to(mask.device)  # (B, W)
    known = (gold >= 0) & (gold < logits.size(-1))
    return model.sequence_losses(logits, gold.masked_fill(~known, 0), mask & known).tolist()
