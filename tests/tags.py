"""Tags for tests, which are shorter to read than lists of entities."""

from collections.abc import Sequence
from typing import Any

from analysis.metrics import EntityScores, score_entities, score_tags
from common.entities import Annotation, outermost
from common.tag_schemes import SCHEMES, entities_to_tags, tags_to_entities
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
