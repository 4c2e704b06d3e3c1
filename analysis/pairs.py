"""Which prediction belongs to which gold entity, and what is wrong with it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from analysis.documents import ScoredDocument
from analysis.intervals import precision_recall_f1
from analysis.metrics import Score
from common.entities import Entity

KINDS = ("right", "type", "boundary", "type and boundary", "missed", "spurious")


class Pair(NamedTuple):
    """A gold entity and the prediction that stands for it; one of them is ``None`` where it has no partner."""

    gold: Entity | None
    predicted: Entity | None

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if self.gold is None:
            return "spurious"
        if self.predicted is None:
            return "missed"
        same_type = self.gold.type == self.predicted.type
        if self.gold[1:] == self.predicted[1:]:
            return "right" if same_type else "type"
        return "boundary" if same_type else "type and boundary"


def overlapping_groups(
    gold: Sequence[Entity], predicted: Sequence[Entity]
) -> Iterator[tuple[list[Entity], list[Entity]]]:
    """The gold and predicted entities that share words, directly or through others, in the order of the text."""
    group: tuple[list[Entity], list[Entity]] = ([], [])
    reach = -1
    sides = [(entity, side) for side, entities in enumerate((gold, predicted)) for entity in entities]
    for entity, side in sorted(sides, key=lambda item: item[0].first_word):
        if entity.first_word > reach and any(group):
            yield group
            group = ([], [])
        group[side].append(entity)
        reach = max(reach, entity.last_word)
    if any(group):
        yield group


def pair_entities(gold: Sequence[Entity], predicted: Sequence[Entity]) -> list[Pair]:
    """Pairs entities one to one: those that share most of their words first, then those of like type, then the earlier.

    An entity that is on both sides is always a pair.
    """
    return [pair for group in overlapping_groups(gold, predicted) for pair in _pairs_of_group(*group)]


def _pairs_of_group(gold: list[Entity], predicted: list[Entity]) -> list[Pair]:
    candidates = sorted(
        ((one, other) for one in gold for other in predicted if _overlap(one, other) > 0),
        key=lambda pair: (-_likeness(*pair), pair[0].type != pair[1].type, pair[0].first_word, pair[1].first_word),
    )
    partners: dict[Entity, Entity] = {}
    taken: set[Entity] = set()
    for one, other in candidates:
        if one not in partners and other not in taken:
            partners[one] = other
            taken.add(other)
    return [
        *(Pair(one, partners.get(one)) for one in gold),
        *(Pair(None, other) for other in predicted if other not in taken),
    ]


def _overlap(one: Entity, other: Entity) -> int:
    return min(one.last_word, other.last_word) - max(one.first_word, other.first_word) + 1


def _likeness(one: Entity, other: Entity) -> float:
    """Shared words by all words of two spans that overlap; 1 for the same span."""
    all_words = max(one.last_word, other.last_word) - min(one.first_word, other.first_word) + 1
    return _overlap(one, other) / all_words


def error_kinds(pairs: Iterable[Pair]) -> dict[str, int]:
    """How many pairs there are of each of ``KINDS``."""
    counted = Counter(pair.kind for pair in pairs)
    return {kind: counted[kind] for kind in KINDS}


def type_confusion(pairs: Iterable[Pair]) -> dict[str, Any]:
    """Which type was taken for which, whatever the borders.

    Returns:
        ``types``; ``matrix``, a row for each gold type and a column for each predicted one; ``missed`` and
        ``spurious``, a number for each type.
    """
    counted = Counter((pair.gold and pair.gold.type, pair.predicted and pair.predicted.type) for pair in pairs)
    types = sorted({entity_type for pair in counted for entity_type in pair if entity_type is not None})
    return {
        "types": types,
        "matrix": [[counted[gold, predicted] for predicted in types] for gold in types],
        "missed": [counted[gold, None] for gold in types],
        "spurious": [counted[None, predicted] for predicted in types],
    }


def all_pairs(documents: Iterable[ScoredDocument]) -> list[Pair]:
    return [pair for document in documents for pair in pair_entities(document.gold, document.predicted)]


SEEN, UNSEEN = "seen in train", "unseen"


def breakdown(
    documents: Sequence[ScoredDocument], part_of: Callable[[ScoredDocument, Entity], str]
) -> dict[str, Score]:
    """Scores of each part, where ``part_of`` says to which part a span belongs, gold or predicted."""
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for document in documents:
        gold = set(document.gold)
        for entity in document.predicted:
            count = counts[part_of(document, entity)]
            count[0] += entity in gold
            count[1] += 1
        for entity in document.gold:
            counts[part_of(document, entity)][2] += 1
    return {part: score_of(count) for part, count in counts.items()}


def score_of(counts: Sequence[int]) -> Score:
    """Of the numbers of right, predicted and gold entities."""
    precision, recall, f1 = precision_recall_f1(np.array(counts)).tolist()
    return Score(precision, recall, f1, counts[2])


def scores_by_length(documents: Sequence[ScoredDocument]) -> dict[str, Score]:
    """By words, or characters where a word is one: 1, 2, 3-4, 5-8, 9-16 and more."""
    found = breakdown(documents, lambda _, entity: length_range(entity.words))
    return {name: found[name] for name in LENGTHS if name in found}


LENGTHS = ("1", "2", "3-4", "5-8", "9-16", "17+")


def length_range(length: int) -> str:
    """The one of ``LENGTHS`` in which a length falls."""
    return LENGTHS[min((length - 1).bit_length(), len(LENGTHS) - 1)]


def scores_by_novelty(documents: Sequence[ScoredDocument], known: Set[str]) -> dict[str, Score]:
    """By whether the surface is among those that training annotates, whatever their type (Augenstein et al. 2017)."""
    found = breakdown(documents, lambda document, entity: SEEN if document.surface(entity) in known else UNSEEN)
    return {name: found.get(name, Score()) for name in (SEEN, UNSEEN)}
