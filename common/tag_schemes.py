"""Tag schemes: reading, writing, detection, validation, conversion, allowed transitions, and encoding as label ids.

A tag is ``O``, or a prefix and an entity type as in ``B-PER``; the type may contain hyphens. Tags of all schemes are
read by the rules of CoNLL's ``conlleval`` (Tjong Kim Sang and De Meulder 2003), so an ill-formed sequence is read as in
published scores.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from common.entities import Annotation, Entity, outermost

OUTSIDE = "O"
UNKNOWN = "?"  # in files: the tag of a word that is not annotated
MISSED = 2  # in sets of tags: the tag of an entity that nobody has marked, although somebody has looked at the word
# BMES and BILOU use other letters for the same positions.
_CANONICAL_PREFIX = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}


@dataclass(frozen=True)
class TagScheme:
    """A tag scheme.

    Args:
        name: usual name of the scheme.
        positions: prefixes of the first, inner and last words of an entity, and of a single word.
        starts: prefixes that may begin an entity if no entity of the same type ends right before it.
        ends: prefixes that may end an entity if no entity of the same type begins right after it.
        follows: for each prefix, the prefixes that may follow it with the same type.
    """

    name: str
    positions: str
    starts: str
    ends: str
    follows: dict[str, str]

    @property
    def prefixes(self) -> list[str]:
        return list(self.follows)

    def allows(self, previous: str, following: str) -> bool:
        """Whether the tag ``following`` may follow ``previous``; ``O`` also stands for the sentence boundary."""
        (left, left_type), (right, right_type) = split_tag(previous), split_tag(following)
        if left != OUTSIDE and right != OUTSIDE and left_type == right_type:
            return right in self.follows.get(left, "")
        return (left == OUTSIDE or left in self.ends) and (right == OUTSIDE or right in self.starts)


def _scheme_of_positions(name: str, positions: str) -> TagScheme:
    """A scheme whose prefixes only depend on the position in the entity."""
    begin, inside, end, single = list(positions)
    follows = dict.fromkeys(positions, "")
    for prefix in {begin, inside}:
        follows[prefix] += inside + end
    for prefix in {end, single}:
        follows[prefix] += begin + single
    return TagScheme(name, positions, begin + single, end + single, follows)


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        TagScheme("IOB1", "IIII", starts="I", ends="IB", follows={"B": "BI", "I": "BI"}),
        _scheme_of_positions("IOB2", "BIIB"),
        TagScheme("IOE1", "IIII", starts="IE", ends="I", follows={"I": "IE", "E": "IE"}),
        _scheme_of_positions("IOE2", "IIEE"),
        _scheme_of_positions("BIOS", "BIIS"),
        _scheme_of_positions("BIOES", "BIES"),
        _scheme_of_positions("BMES", "BMES"),
        _scheme_of_positions("BILOU", "BILU"),
    )
}
MARKUPS = {
    "bio": SCHEMES["IOB2"],
    **{name.lower(): SCHEMES[name] for name in ("IOB1", "BIOS", "BIOES", "BMES", "BILOU")},
}
TRAINED_MARKUPS = tuple(name for name in MARKUPS if name != "iob1")  # only used by imported models


class MixedSchemesError(ValueError):
    """The prefixes found do not belong to a single scheme."""


@lru_cache(maxsize=4096)
def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag: ``"B-PER"`` -> ``("B", "PER")``, ``"O"`` -> ``("O", "")``; a bare ``"B"`` has the empty type.

    Raises:
        ValueError: the tag is neither ``O`` nor a known prefix with a type.
    """
    prefix, hyphen, entity_type = tag.partition("-")
    if tag == OUTSIDE or (prefix in _CANONICAL_PREFIX and (entity_type or not hyphen)):
        return prefix, entity_type
    raise ValueError(
        f"{tag!r} is not a tag: expected O or one of {'/'.join(_CANONICAL_PREFIX)} with a type, as in B-PER"
    )


def is_tag(text: str) -> bool:
    try:
        split_tag(text)
    except ValueError:
        return False
    return True


def join_tag(prefix: str, entity_type: str) -> str:
    """Join prefix and type; the inverse of `split_tag`."""
    return f"{prefix}-{entity_type}" if entity_type else prefix


@lru_cache(maxsize=4096)
def canonical_tag(tag: str) -> str:
    """Replace the letters of BMES and BILOU by those of BIOES."""
    prefix, entity_type = split_tag(tag)
    return join_tag(_CANONICAL_PREFIX.get(prefix, prefix), entity_type)


def tags_to_entities(tags: Sequence[str]) -> list[Entity]:
    """Read the entities from the tags of one sentence, in any scheme, as ``conlleval`` does.

    An entity begins at B or S, after O, at a change of type, and after E or S; it ends before the next entity, before
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
    """Convert non-overlapping entities over ``length`` words to tags of ``scheme``.

    Raises:
        ValueError: an entity is empty, overlaps another, or is outside the sentence.
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
    """Prefixes of one entity; IOB1 and IOE1 mark a boundary only between adjacent entities of the same type."""
    begin, inside, end, single = list(scheme.positions)
    prefixes = [single] if length == 1 else [begin, *[inside] * (length - 2), end]
    if scheme.name == "IOB1" and touches_left:
        prefixes[0] = "B"
    if scheme.name == "IOE1" and touches_right:
        prefixes[-1] = "E"
    return prefixes


def tag_pairs(tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of adjacent tags, with ``O`` for the start and end of the sentence."""
    return zip((OUTSIDE, *tags), (*tags, OUTSIDE), strict=True)


@lru_cache(maxsize=65536)
def begins_entity(previous: str, tag: str) -> bool:
    """Whether an entity begins at ``tag`` after ``previous``, by the rules of ``conlleval``."""
    (left, left_type), (right, right_type) = split_tag(previous), split_tag(tag)
    left, right = (_CANONICAL_PREFIX.get(prefix, OUTSIDE) for prefix in (left, right))
    continues = right in "IE" and left in "BI" and left_type == right_type
    return right != OUTSIDE and not continues


def detect_scheme(pair_counts: Mapping[tuple[str, str], int]) -> TagScheme:
    """Detect the scheme of a corpus from the counts of its `tag_pairs`; IOB2 if there are no entities.

    IOB1 and IOB2 use the same letters, as do IOE1 and IOE2. They are told apart by the majority of entity boundaries,
    so a few ill-formed sequences do not matter.

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
    raise MixedSchemesError(f"the prefixes {', '.join(sorted(found))} do not belong to one tag scheme")


def tag_set(types: Iterable[str], scheme: TagScheme, single_words: bool = False) -> list[str]:
    """All tags of a scheme for these entity types, ``O`` first; or only those of one-word entities."""
    prefixes = _prefixes_of_entity(1, scheme, False, False) if single_words else scheme.prefixes
    return [OUTSIDE, *(join_tag(prefix, entity_type) for entity_type in types for prefix in prefixes)]


def markup_of_tags(tags: Iterable[str], default: str) -> str:
    """Name in ``MARKUPS`` of the scheme of a model's tags; ``default`` if it cannot be determined."""
    tags = [tag for tag in tags if tag not in ("", OUTSIDE)]
    prefixes = {split_tag(tag)[0] for tag in tags}
    if prefixes <= {"B", "I"} and any(tag[0] == "I" and f"B{tag[1:]}" not in tags for tag in tags):
        return "iob1"
    return next((name for name, scheme in MARKUPS.items() if tags and prefixes <= set(scheme.prefixes)), default)


def legal_transitions(tags: Sequence[str], scheme: TagScheme) -> NDArray[np.bool_]:
    """Boolean matrix ``(C + 2, C + 2)`` of the transitions that a scheme allows between ``C`` tags.

    ``[i, j]`` is true if tag j may follow tag i; row C is the start of a sentence, column C + 1 its end.
    """
    rows, columns = [*tags, OUTSIDE, None], [*tags, None, OUTSIDE]
    return np.array(
        [[left is not None and right is not None and scheme.allows(left, right) for right in columns] for left in rows]
    )


IGNORED_LABEL = -100
_TAGS_DEPEND_ON_NEIGHBOURS = ("IOB1", "IOE1")


class TagEncoder:
    """Encodes annotations as label ids; of overlapping entities only the outermost.

    Args:
        tags: all tags, in the order of their ids.
        scheme: the scheme of the tags.
        unknown: id for tags that are not in ``tags``; by default such a tag is an error.
    """

    def __init__(self, tags: Sequence[str], scheme: TagScheme, unknown: int | None = None) -> None:
        self.tags, self.scheme, self._unknown = list(tags), scheme, unknown
        self._ids = {tag: index for index, tag in enumerate(self.tags)}
        self._known: dict[tuple[str, int], list[int]] = {}

    def __call__(self, annotations: Sequence[Annotation]) -> torch.Tensor:
        """Encode annotations as label ids ``(B, W)``, with -100 for padding and unannotated words.

        Raises:
            ValueError: a tag is not among the labels.
        """
        W = max(1, max(annotation.words for annotation in annotations))
        labels = np.full((len(annotations), W), IGNORED_LABEL, np.int64)  # (B, W)
        for row, annotation in zip(labels, annotations, strict=True):
            entities = annotation.entities
            if entities is None:
                continue
            if any(after.first_word <= before.last_word for before, after in pairwise(entities)):
                entities = outermost(entities)
            if self.scheme.name in _TAGS_DEPEND_ON_NEIGHBOURS:
                tags = entities_to_tags(entities, annotation.words, self.scheme)
                row[: annotation.words] = [self._id(tag) for tag in tags]
            else:
                row[: annotation.words] = self._id(OUTSIDE)
                for entity_type, first, last in entities:
                    row[first : last + 1] = self._entity_ids(entity_type, last - first + 1)
            for first, last in annotation.unannotated:
                row[first : last + 1] = IGNORED_LABEL
        return torch.from_numpy(labels)

    def sets(self, annotations: Sequence[Annotation]) -> torch.Tensor:
        """Encode annotations as the sets of tags that words may have ``(B, W, C)``: 0 for tags that they cannot have.

        A word outside of the entities of a text that is annotated for some types only may be ``O``, which is 1, or have
        any tag of the other types, which are `MISSED`. All are -100 for padding and for words of which nothing is
        known. The words next to an entity cannot continue it.
        """
        labels = self(annotations).numpy()  # (B, W)
        sets = np.full((*labels.shape, len(self.tags)), IGNORED_LABEL, np.int64)  # (B, W, C)
        outside = self._ids[OUTSIDE]
        for row, own, annotation in zip(sets, labels, annotations, strict=True):
            if annotation.entities is None:
                continue
            row, own = row[: annotation.words], own[: annotation.words]
            row[own != IGNORED_LABEL] = 0
            row[own == IGNORED_LABEL] = 1
            known = (own != IGNORED_LABEL).nonzero()[0]
            row[known, own[known]] = 1
            row[own == outside] += MISSED * self._tags_of(annotation.open_types(self._types))
            if not annotation.is_partial:
                continue
            for _, first, last in annotation.entities:
                if last + 1 < annotation.words and own[last] != IGNORED_LABEL:
                    row[last + 1] *= self._separates[own[last]]
                if first > 0 and own[first] != IGNORED_LABEL:
                    row[first - 1] *= self._separates[:, own[first]]
            row[(row == 1).all(1)] = IGNORED_LABEL
        return torch.from_numpy(sets)

    @cached_property
    def _types(self) -> list[str]:
        return list(dict.fromkeys(split_tag(tag)[1] for tag in self.tags if tag != OUTSIDE))

    def _tags_of(self, types: Sequence[str]) -> NDArray[np.int64]:
        """1 for the tags of these types: ``(C,)``."""
        return np.array([tag != OUTSIDE and split_tag(tag)[1] in types for tag in self.tags], np.int64)

    @cached_property
    def _separates(self) -> NDArray[np.int64]:
        """``[i, j]`` is 1 if tag j after tag i does not continue an entity: ``(C, C)``."""
        tags = self.tags
        return np.array([[j == OUTSIDE or begins_entity(i, j) for j in tags] for i in tags], np.int64)

    def _entity_ids(self, entity_type: str, words: int) -> list[int]:
        """Label ids of the words of an entity."""
        key = (entity_type, words)
        if key not in self._known:
            tags = entities_to_tags([Entity(entity_type, 0, words - 1)], words, self.scheme)
            self._known[key] = [self._id(tag) for tag in tags]
        return self._known[key]

    def _id(self, tag: str) -> int:
        found = self._ids.get(tag, self._unknown)
        if found is None:
            raise ValueError(f"label {tag!r} is not among the labels {', '.join(self.tags)}")
        return found
