"""Annotations that are probably wrong, by the exact probabilities of a model that has not seen the text."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from common.entities import Entity


class Suspicion(NamedTuple):
    """An annotation that is probably wrong.

    Args:
        suspicion: one minus the probability of the gold entity; if an entity is missing, the probability of that.
        gold: the entity of the annotation; ``None`` if one is missing.
        probability: probability of exactly the gold entity.
        suggestion: what the model finds instead of it, or in addition; ``None`` if it finds no entity there.
        confidence: probability of exactly the suggestion.
    """

    suspicion: float
    gold: Entity | None
    probability: float | None
    suggestion: Entity | None
    confidence: float | None


def overlap(one: Entity, other: Entity) -> bool:
    """Whether two entities share a word."""
    return one.first_word <= other.last_word and other.first_word <= one.last_word


def suspicions_in_text(
    gold: Sequence[Entity], probabilities: Sequence[float], candidates: Sequence[tuple[Entity, float]]
) -> Iterator[Suspicion]:
    """Yield a suspicion for each gold entity, and for each place where an entity seems to be missing.

    Args:
        gold: entities of the annotation.
        probabilities: probability of exactly each of them.
        candidates: other spans with the probability that each is an entity; of those that overlap each other and no
            gold entity, the most probable one is missing.
    """
    known = set(gold)
    by_probability = sorted((one for one in candidates if one[0] not in known), key=lambda one: -one[1])
    for entity, probability in zip(gold, probabilities, strict=True):
        likelier = ((one, p) for one, p in by_probability if overlap(one, entity) and p > probability)
        suggestion, confidence = next(likelier, (None, None))
        yield Suspicion(1 - probability, entity, probability, suggestion, confidence)
    taken = list(gold)
    for candidate, probability in by_probability:
        if not any(overlap(candidate, one) for one in taken):
            taken.append(candidate)
            yield Suspicion(probability, None, None, candidate, probability)
