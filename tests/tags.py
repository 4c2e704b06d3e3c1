"""Tags for tests, which are shorter to read than lists of entities."""

from collections.abc import Sequence
from typing import Any

from analysis.metrics import EntityScores, score_entities, score_tags
from common.entities import Annotation, outermost
from common.tag_schemes import SCHEMES, TagScheme, entities_to_tags, tag_pairs, tags_to_entities
from processors.examples import Example


def iob2(known: Example | Annotation) -> list[str] | None:
    """The outermost entities of a text as tags."""
    annotation = known.annotation if isinstance(known, Example) else known
    if annotation.entities is None:
        return None
    return entities_to_tags(outermost(annotation.entities), annotation.words, SCHEMES["IOB2"])


def tagged(guid: str, words: Sequence[str], tags: Sequence[str] | None = None, **more: Any) -> Example:
    """An example with the entities that its tags say."""
    return Example(guid, list(words), None if tags is None else tags_to_entities(tags), **more)


def scores_of_tags(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], markup: str) -> EntityScores:
    """All scores of the tags of some sentences."""
    scores = score_entities(list(map(tags_to_entities, gold)), list(map(tags_to_entities, predicted)))
    scores.strict, scores.accuracy = score_tags(list(zip(gold, predicted, strict=True)), markup)
    return scores


def convert_tags(tags: Sequence[str], scheme: TagScheme) -> list[str]:
    """Convert the tags of one sentence from any scheme to ``scheme``; the entities stay the same."""
    return entities_to_tags(tags_to_entities(tags), len(tags), scheme)


def illegal_positions(tags: Sequence[str], scheme: TagScheme) -> list[int]:
    """Positions of tags that may not follow the previous one; ``len(tags)`` if the last tag may not end a sentence."""
    return [i for i, (left, right) in enumerate(tag_pairs(tags)) if not scheme.allows(left, right)]
