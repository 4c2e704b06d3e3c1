"""Entities over words, and the annotation of a text or window."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Entity(NamedTuple):
    """A typed span of words, ``first_word`` to ``last_word`` (inclusive).

    Entities of one text may nest and overlap.
    """

    type: str
    first_word: int
    last_word: int

    @property
    def words(self) -> int:
        """Number of words."""
        return self.last_word - self.first_word + 1


@dataclass(frozen=True)
class Annotation:
    """The annotation of a text, or of the words that a window owns.

    Args:
        words: number of words.
        entities: in any order; ``None`` if nothing is annotated.
        unannotated: inclusive word ranges ``(first_word, last_word)`` without annotation.
    """

    words: int
    entities: Sequence[Entity] | None
    unannotated: Sequence[tuple[int, int]] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all words are annotated, so that predictions can be scored."""
        return self.entities is not None and not self.unannotated

    def of_types(self, types: Collection[str]) -> "Annotation":
        """The annotation for a model of these types: words of entities of other types count as unannotated."""
        others = [one for one in self.entities or () if one.type not in types]
        if self.entities is None or not others:
            return self
        unannotated = [*self.unannotated, *((one.first_word, one.last_word) for one in others)]
        return Annotation(self.words, [one for one in self.entities if one.type in types], unannotated)


def text_order(entity: Entity) -> tuple[int, int, str]:
    """Key to sort by: first word, then longest first, then type."""
    return entity.first_word, -entity.last_word, entity.type


def in_text_order(entities: Iterable[Entity]) -> list[Entity]:
    """Remove duplicates and sort."""
    return sorted(set(entities), key=text_order)


def outermost(entities: Iterable[Entity]) -> list[Entity]:
    """Select the entities that flat tags can express, in text order: the longest of those that overlap.

    Ties go to the entity given first.
    """
    longest_first = sorted(dict.fromkeys(entities), key=lambda one: -one.words)
    return sorted(disjoint(longest_first), key=lambda one: one.first_word)


def disjoint(entities: Sequence[Entity]) -> list[Entity]:
    """Leave out entities that overlap one that is given before."""
    taken = bytearray(1 + max((one.last_word for one in entities), default=-1))
    kept: list[Entity] = []
    for entity in entities:
        if not any(taken[entity.first_word : entity.last_word + 1]):
            taken[entity.first_word : entity.last_word + 1] = bytes([1]) * entity.words
            kept.append(entity)
    return kept
