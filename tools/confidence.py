"""How sure a model is of an entity: the probability that exactly this span with this type is in the tag sequence."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.tagger import Tagger
from processors.tag_schemes import MARKUPS, OUTSIDE, Entity, begins_entity, entities_to_tags

_SPANS_AT_ONCE = 4096  # bounds the memory that spans take; every call walks the whole lattice once


def entity_confidences(
    model: Tagger, logits: Tensor, word_mask: Tensor, entities: Sequence[Sequence[Entity]], markup: str
) -> list[list[float]]:
    """Confidences of the entities of each row, exact under the model: from the CRF's lattice, or the softmax.

    It is the probability that the span's words have the entity's well-formed tags and that the word after it does not
    continue it.

    Args:
        logits, word_mask: ``(B, W, C)`` and ``(B, W)``.
        entities: of each of the B rows.
        markup: tag scheme of the model's tags.
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
    longest = max(entity.end - entity.start for _, entity in places)
    inside = torch.zeros(len(places), longest, len(ids), dtype=torch.bool)
    after = torch.zeros(len(places), len(ids), dtype=torch.bool)
    for index, (_, entity) in enumerate(places):
        length = entity.end - entity.start
        tags = entities_to_tags([Entity(entity.type, 0, length)], length, MARKUPS[markup])
        inside[index, range(length), [ids[tag] for tag in tags]] = True
        after[index] = torch.tensor([tag == OUTSIDE or begins_entity(tags[-1], tag) for tag in tag_names])
    spans = torch.tensor([(row, entity.start, entity.end - 1) for row, entity in places])
    return spans, inside, after
