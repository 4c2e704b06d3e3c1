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

    @property
    def is_complete(self) -> bool:
        """Whether all words are annotated, so that predictions can be scored."""
        return self.entities is not None and not self.unannotated


def in_text_order(entities: Iterable[Entity]) -> list[Entity]:
    """Each entity once: by first word, longer ones first, then by type."""
    return sorted(set(entities), key=lambda one: (one.first_word, -one.last_word, one.type))


def outermost(entities: Iterable[Entity]) -> list[Entity]:
    """The entities that flat tags can express, in the order of the text: of those that overlap the longest.

    Of equally long ones the one that is given first.
    """
    longest_first = sorted(dict.fromkeys(entities), key=lambda one: -one.words)
    taken = bytearray(1 + max((one.last_word for one in longest_first), default=-1))
    kept: list[Entity] = []
    for entity in longest_first:
        # what overlaps a longer entity has an end in it
        if not (taken[entity.first_word] or taken[entity.last_word]):
            taken[entity.first_word : entity.last_word + 1] = bytes([1]) * entity.words
            kept.append(entity)
    return sorted(kept, key=lambda one: one.first_word)
