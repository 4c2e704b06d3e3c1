"""How sure a model is of an entity: the probability that exactly this span with this type is in the tag sequence."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.tagger import Tagger
from processors.tag_schemes import (
    MARKUPS,
    OUTSIDE,
    SCHEMES,
    Entity,
    TagScheme,
    begins_entity,
    entities_to_tags,
    split_tag,
    tag_set,
)

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
    longest = max(entity.end - entity.start for _, entity in places)
    inside = torch.zeros(len(places), longest, len(ids), dtype=torch.bool)
    after = torch.zeros(len(places), len(ids), dtype=torch.bool)
    for index, (_, entity) in enumerate(places):
        length = entity.end - entity.start
        if scheme is not None:
            tags = [[tag] for tag in entities_to_tags([Entity(entity.type, 0, length)], length, scheme)]
        else:
            tags = _readable_tags(entity.type, length, tag_names)
        for word, choice in enumerate(tags):
            inside[index, word, [ids[tag] for tag in choice]] = True
        after[index] = torch.tensor(
            [tag == OUTSIDE or all(begins_entity(last, tag) for last in tags[-1]) for tag in tag_names]
        )
    spans = torch.tensor([(row, entity.start, entity.end - 1) for row, entity in places])
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
