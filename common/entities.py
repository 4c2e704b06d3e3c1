"""Entities over words, and what is known of a text: the data that everything else reads, encodes and scores."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Entity(NamedTuple):
    """The words ``first_word`` to ``last_word`` (inclusive) of a text name something of this ``type``.

    Entities of one text may nest and overlap.
    """

    type: str
    first_word: int
    last_word: int

    @property
    def words(self) -> int:
        """Number of its words."""
        return self.last_word - self.first_word + 1


@dataclass(frozen=True)
class Annotation:
    """What is known of a text, or of the words that a window owns.

    Args:
        words: number of words.
        entities: in any order; ``None`` where nothing is annotated.
        unannotated: inclusive ranges of words, ``(first_word, last_word)``, of which nothing is known.
    """

    words: int
    entities: Sequence[Entity] | None
    unannotated: Sequence[tuple[int, int]] = ()


def outermost(entities: Iterable[Entity]) -> list[Entity]:
    """The entities that flat tags can express, in order: the longest of those that overlap, else the first."""
    kept: list[Entity] = []
    for entity in sorted(set(entities), key=lambda one: (-one.words, one.first_word, one.type)):
        if all(entity.last_word < other.first_word or other.last_word < entity.first_word for other in kept):
            kept.append(entity)
    return sorted(kept, key=lambda one: one.first_word)
