"""Annotations that are probably wrong, by the exact probabilities of a model that has not seen the text."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from common.entities import Entity


class Likely(NamedTuple):
    """An entity, the probability of exactly this entity, and the probability that its words belong to no entity."""

    entity: Entity
    probability: float
    outside: float


class Suspicion(NamedTuple):
    """An annotation, and what a model would put in its place.

    Args:
        suspicion: ``confidence`` minus ``probability``: how much more probable the suggestion is than the annotation.
        gold: the entity of the annotation; ``None`` for words that it leaves outside of entities.
        probability: probability of what is annotated: of exactly this entity, or that the words belong to no entity.
        suggestion: another entity; ``None`` if the words of the gold entity should belong to none.
        confidence: probability of the suggestion.
    """

    suspicion: float
    gold: Entity | None
    probability: float
    suggestion: Entity | None
    confidence: float

    @property
    def kind(self) -> str:
        """``wrong``: another entity; ``missing``; ``spurious``: no entity."""
        return "missing" if self.gold is None else "spurious" if self.suggestion is None else "wrong"

    @property
    def order(self) -> tuple[bool, float]:
        """Key to rank by: the most suspicious first, but spurious ones last.

        A model finds no entity in most names that it does not know, which says little about their annotation.
        """
        return self.kind == "spurious", -self.suspicion


def overlap(one: Entity, other: Entity) -> bool:
    """Whether two entities share a word."""
    return one.first_word <= other.last_word and other.first_word <= one.last_word


def suspicions_in_text(gold: Sequence[Likely], candidates: Sequence[Likely]) -> Iterator[Suspicion]:
    """Yield a suspicion for each gold entity, and for each place where an entity may be missing.

    Args:
        gold: entities of the annotation.
        candidates: entities that the model considers. The suggestion for a gold entity is the most probable one that
            overlaps it, or none. Of those that overlap each other and no gold entity the most probable may be missing.
    """
    known = {one.entity for one in gold}
    others = sorted((one for one in candidates if one.entity not in known), key=lambda one: -one.probability)
    for entity, probability, outside in gold:
        overlapping = (one for one in others if overlap(one.entity, entity))
        best = next(overlapping, None)
        suggestion, confidence = (best.entity, best.probability) if best else (None, 0.0)
        if confidence < outside:
            suggestion, confidence = None, outside
        yield Suspicion(confidence - probability, entity, probability, suggestion, confidence)
    taken = [one.entity for one in gold]
    for entity, probability, outside in others:
        if not any(overlap(entity, one) for one in taken):
            taken.append(entity)
            yield Suspicion(probability - outside, None, outside, entity, probability)
