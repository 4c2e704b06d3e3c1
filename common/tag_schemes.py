"""Tag schemes as pure functions: read, write, detect, validate, convert, and the transitions that each allows.

A tag is ``O`` or a prefix and an entity type, ``B-PER``; the type may itself contain hyphens. Reading is the same for
all schemes, by the chunking rules of CoNLL's ``conlleval`` (Tjong Kim Sang and De Meulder 2003), so an ill-formed
sequence has exactly one meaning: the one that published scores give it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from common.entities import Entity

OUTSIDE = "O"
# BMES and BILOU write the same positions with other letters.
_CANONICAL_PREFIX = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}


@dataclass(frozen=True)
class TagScheme:
    """One way to write entities as tags.

    Args:
        name: the field's name of the scheme.
        starts: prefixes that may begin an entity where none of the same type ends right before.
        ends: prefixes that may close an entity where none of the same type begins right after.
        follows: for each prefix, the prefixes that may come next with the same type.
    """

    name: str
    starts: str
    ends: str
    follows: dict[str, str]

    @property
    def prefixes(self) -> list[str]:
        return list(self.follows)

    def allows(self, previous: str, following: str) -> bool:
        """Whether the tag ``following`` may stand right after ``previous``; ``O`` also means the sentence's edge."""
        (left, left_type), (right, right_type) = split_tag(previous), split_tag(following)
        if left != OUTSIDE and right != OUTSIDE and left_type == right_type:
            return right in self.follows.get(left, "")
        return (left == OUTSIDE or left in self.ends) and (right == OUTSIDE or right in self.starts)


def _four_part_scheme(name: str, begin: str, inside: str, end: str, single: str) -> TagScheme:
    open_next, closed_next = inside + end, begin + single
    follows = {begin: open_next, inside: open_next, end: closed_next, single: closed_next}
    return TagScheme(name, starts=begin + single, ends=end + single, follows=follows)


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        TagScheme("IOB1", starts="I", ends="IB", follows={"B": "BI", "I": "BI"}),
        TagScheme("IOB2", starts="B", ends="BI", follows={"B": "BI", "I": "BI"}),
        TagScheme("IOE1", starts="IE", ends="I", follows={"I": "IE", "E": "IE"}),
        TagScheme("IOE2", starts="IE", ends="E", follows={"I": "IE", "E": "IE"}),
        TagScheme("BIOS", starts="BS", ends="IS", follows={"B": "I", "I": "IBS", "S": "BS"}),
        _four_part_scheme("BIOES", "B", "I", "E", "S"),
        _four_part_scheme("BMES", "B", "M", "E", "S"),
        _four_part_scheme("BILOU", "B", "I", "L", "U"),
    )
}
# Begin, inside, end and single, for the schemes in which a word's place in its entity alone decides.
_POSITIONS = {
    "IOB2": ("B", "I", "I", "B"),
    "BIOS": ("B", "I", "I", "S"),
    "BIOES": ("B", "I", "E", "S"),
    "BMES": ("B", "M", "E", "S"),
    "BILOU": ("B", "I", "L", "U"),
}
MARKUPS = {
    "bio": SCHEMES["IOB2"],
    "iob1": SCHEMES["IOB1"],
    "bios": SCHEMES["BIOS"],
    "bioes": SCHEMES["BIOES"],
    "bmes": SCHEMES["BMES"],
    "bilou": SCHEMES["BILOU"],
}
TRAINED_MARKUPS = tuple(name for name in MARKUPS if name != "iob1")  # which only models of others have


class MixedSchemesError(ValueError):
    """The prefixes found belong to no one scheme."""


@lru_cache(maxsize=4096)
def split_tag(tag: str) -> tuple[str, str]:
    """``"B-PER"`` -> ``("B", "PER")``; ``"O"`` -> ``("O", "")``; a bare ``"B"`` has the empty type.

    Raises:
        ValueError: the tag is neither ``O`` nor a known prefix with a type.
    """
    prefix, hyphen, entity_type = tag.partition("-")
    if tag == OUTSIDE or (prefix in _CANONICAL_PREFIX and (entity_type or not hyphen)):
        return prefix, entity_type
    raise ValueError(
        f"{tag!r} is not a tag: expected O or one of {'/'.join(_CANONICAL_PREFIX)} with a type, as in B-PER"
    )


def join_tag(prefix: str, entity_type: str) -> str:
    """The inverse of `split_tag`."""
    return f"{prefix}-{entity_type}" if entity_type else prefix


@lru_cache(maxsize=4096)
def canonical_tag(tag: str) -> str:
    """The tag with the letters of BIOES, where BMES or BILOU has others."""
    prefix, entity_type = split_tag(tag)
    return join_tag(_CANONICAL_PREFIX.get(prefix, prefix), entity_type)


def tags_to_entities(tags: Sequence[str]) -> list[Entity]:
    """Reads entities off one sentence's tags, in any scheme, as ``conlleval`` does.

    An entity begins at B or S, after O, at a change of type, and after an E or S; it ends before the next one, before
    O, and after E or S.
    """
    entities: list[Entity] = []
    start: int | None = None
    for position, (previous, tag) in enumerate(tag_pairs(tags)):
        begins = begins_entity(previous, tag)
        if start is not None and (begins or tag == OUTSIDE):
            entities.append(Entity(split_tag(previous)[1], start, position - 1))
            start = None
        if begins:
            start = position
    return entities


def entities_to_tags(entities: Iterable[Entity], length: int, scheme: TagScheme) -> list[str]:
    """Writes non-overlapping entities over ``length`` words as tags of ``scheme``.

    Raises:
        ValueError: an entity is empty, overlaps another or reaches outside the sentence.
    """
    tags = [OUTSIDE] * length
    ordered = sorted(entities, key=lambda entity: entity.first_word)
    neighbours: list[Entity | None] = [None, *ordered, None]
    for before, entity, after in zip(neighbours, ordered, neighbours[2:], strict=False):
        if not (before.last_word if before else -1) < entity.first_word <= entity.last_word < length:
            raise ValueError(f"{entity} is empty, overlaps {before}, or reaches outside the {length} words")
        touches_left = before is not None and (before.type, before.last_word + 1) == (entity.type, entity.first_word)
        touches_right = after is not None and (after.type, after.first_word) == (entity.type, entity.last_word + 1)
        prefixes = _prefixes_of_entity(entity.words, scheme, touches_left, touches_right)
        tags[entity.first_word : entity.last_word + 1] = [join_tag(prefix, entity.type) for prefix in prefixes]
    return tags


def _prefixes_of_entity(length: int, scheme: TagScheme, touches_left: bool, touches_right: bool) -> list[str]:
    """The prefixes of one entity; IOB1 and IOE1 mark a border only where entities of one type touch."""
    if scheme.name == "IOB1":
        return ["B" if touches_left else "I"] + ["I"] * (length - 1)
    if scheme.name in ("IOE1", "IOE2"):
        return ["I"] * (length - 1) + ["E" if touches_right or scheme.name == "IOE2" else "I"]
    begin, inside, end, single = _POSITIONS[scheme.name]
    return [single] if length == 1 else [begin, *[inside] * (length - 2), end]


def convert_tags(tags: Sequence[str], scheme: TagScheme) -> list[str]:
    """Rewrites one sentence's tags, of any scheme, in ``scheme``; the entities stay the same."""
    return entities_to_tags(tags_to_entities(tags), len(tags), scheme)


def illegal_positions(tags: Sequence[str], scheme: TagScheme) -> list[int]:
    """Positions whose tag may not follow the one before it; ``len(tags)`` where the sentence may not end so."""
    return [i for i, (left, right) in enumerate(tag_pairs(tags)) if not scheme.allows(left, right)]


def tag_pairs(tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each tag with its successor, from the sentence's start to its end, both written as ``O``."""
    return zip((OUTSIDE, *tags), (*tags, OUTSIDE), strict=True)


@lru_cache(maxsize=65536)
def begins_entity(previous: str, tag: str) -> bool:
    """Whether an entity begins at ``tag``, right after ``previous``, in ``conlleval``'s reading."""
    (left, left_type), (right, right_type) = split_tag(previous), split_tag(tag)
    left, right = (_CANONICAL_PREFIX.get(prefix, OUTSIDE) for prefix in (left, right))
    continues = right in "IE" and left in "BI" and left_type == right_type
    return right != OUTSIDE and not continues


def detect_scheme(pair_counts: Mapping[tuple[str, str], int]) -> TagScheme:
    """Names the scheme of a corpus from the counts of its `tag_pairs`; IOB2 where there is no entity at all.

    IOB1 and IOB2 use the same letters, as do IOE1 and IOE2: the borders of entities tell them apart, by majority, so
    that a few ill-formed sequences do not change the answer.

    Raises:
        MixedSchemesError: no scheme has all the prefixes found.
    """
    starts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    found: set[str] = set()
    for (previous, tag), count in pair_counts.items():
        (left, left_type), (right, right_type) = split_tag(previous), split_tag(tag)
        found |= {left, right} - {OUTSIDE}
        if OUTSIDE in (left, right) or left_type != right_type:
            starts[right] += count
            ends[left] += count
    if found <= {"B", "I"}:
        return SCHEMES["IOB1" if starts["I"] > starts["B"] else "IOB2"]
    if found <= {"I", "E"}:
        return SCHEMES["IOE1" if ends["I"] > ends["E"] else "IOE2"]
    for name in ("BIOS", "BIOES", "BMES", "BILOU"):
        if found <= set(SCHEMES[name].prefixes):
            return SCHEMES[name]
    raise MixedSchemesError(f"the prefixes {', '.join(sorted(found))} belong to no one tag scheme")


def tag_set(types: Iterable[str], scheme: TagScheme) -> list[str]:
    """All tags of a scheme over these entity types, ``O`` first."""
    return [OUTSIDE, *(join_tag(prefix, entity_type) for entity_type in types for prefix in scheme.prefixes)]


def markup_of_tags(tags: Iterable[str], default: str) -> str:
    """The name in ``MARKUPS`` of the scheme that a model's tags are of; ``default`` where they do not tell."""
    tags = [tag for tag in tags if tag not in ("", OUTSIDE)]
    prefixes = {split_tag(tag)[0] for tag in tags}
    if prefixes <= {"B", "I"} and any(tag[0] == "I" and f"B{tag[1:]}" not in tags for tag in tags):
        return "iob1"
    return next((name for name, scheme in MARKUPS.items() if tags and prefixes <= set(scheme.prefixes)), default)


def legal_transitions(tags: Sequence[str], scheme: TagScheme) -> NDArray[np.bool_]:
    """Which tag may follow which, as a matrix ``(C + 2, C + 2)`` over ``C`` tags.

    ``[i, j]`` says whether tag j may follow tag i; row C is the start of a sentence, column C + 1 its end.
    """
    rows, columns = [*tags, OUTSIDE, None], [*tags, None, OUTSIDE]
    return np.array(
        [[left is not None and right is not None and scheme.allows(left, right) for right in columns] for left in rows]
    )
