"""Pair predicted with gold entities: kinds of error, type confusion, matching schemes, scores by part."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from nervaluate.entities import Entity as SpanWithLastWord
from nervaluate.entities import EvaluationResult
from nervaluate.strategies import EntityTypeEvaluation, ExactEvaluation, PartialEvaluation, StrictEvaluation

from analysis.documents import ScoredDocument, precision_recall_f1
from analysis.metrics import Score
from common.entities import Entity

KINDS = ("right", "type", "boundary", "type and boundary", "missed", "spurious")
SEEN, UNSEEN = "seen in train", "unseen"
ALL, OUTERMOST, INSIDE = "all entities", "outermost", "inside another"
LENGTHS = ("1", "2", "3-4", "5-8", "9-16", "17+")


class Pair(NamedTuple):
    """A gold entity and its prediction; one of them is ``None`` if the other is unmatched."""

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
    """Yield groups of gold and predicted entities that share words, directly or through others, in text order."""
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
    """Pair entities one to one, greedily by overlap, then by equal type, then by position.

    Equal entities are always paired.
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
    """Intersection over union of the words of two overlapping spans."""
    all_words = max(one.last_word, other.last_word) - min(one.first_word, other.first_word) + 1
    return _overlap(one, other) / all_words


def error_kinds(pairs: Iterable[Pair]) -> dict[str, int]:
    """Count the pairs of each of ``KINDS``."""
    counted = Counter(pair.kind for pair in pairs)
    return {kind: counted[kind] for kind in KINDS}


def type_confusion(pairs: Iterable[Pair]) -> dict[str, Any]:
    """Compute the type confusion matrix, ignoring boundaries.

    Returns:
        ``types``; ``matrix``, with a row per gold type and a column per predicted type; ``missed`` and ``spurious``,
        with a count per type.
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


def breakdown(
    documents: Sequence[ScoredDocument], part_of: Callable[[ScoredDocument, Entity], str]
) -> dict[str, Score]:
    """Compute scores by part; ``part_of`` assigns each gold or predicted entity to a part."""
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
    """Score from the counts of correct, predicted and gold entities."""
    precision, recall, f1 = precision_recall_f1(np.array(counts)).tolist()
    return Score(precision, recall, f1, counts[2])


def scores_by_length(documents: Sequence[ScoredDocument]) -> dict[str, Score]:
    """Compute scores by entity length in words, in the ranges ``LENGTHS``."""
    found = breakdown(documents, lambda _, entity: length_range(entity.words))
    return {name: found[name] for name in LENGTHS if name in found}


def length_range(length: int) -> str:
    """Range of ``LENGTHS`` that contains a length."""
    return LENGTHS[min((length - 1).bit_length(), len(LENGTHS) - 1)]


def scores_by_novelty(documents: Sequence[ScoredDocument], known: Set[str]) -> dict[str, Score]:
    """Compute scores of entities whose text is seen or unseen in train, with any type (Augenstein et al. 2017)."""
    found = breakdown(documents, lambda document, entity: SEEN if document.surface(entity) in known else UNSEEN)
    return {name: found.get(name, Score()) for name in (SEEN, UNSEEN)}


def scores_by_nesting(documents: Sequence[ScoredDocument]) -> dict[str, Score] | None:
    """Compute scores of all entities, and of those that lie inside a gold entity; ``None`` if no gold entity does.

    Args:
        documents: with all gold entities, also those that the head cannot express.
    """

    def place(document: ScoredDocument, entity: Entity) -> str:
        around = (one for one in document.gold if one.words > entity.words)
        inside = any(one.first_word <= entity.first_word and entity.last_word <= one.last_word for one in around)
        return INSIDE if inside else OUTERMOST

    if all(place(document, one) == OUTERMOST for document in documents for one in document.gold):
        return None
    everything = breakdown(documents, lambda _document, _entity: ALL)
    return everything | breakdown(documents, place)


_STRATEGIES = {
    "strict": StrictEvaluation(),
    "exact": ExactEvaluation(),
    "partial": PartialEvaluation(),
    "type": EntityTypeEvaluation(),
}
_RIGHT = EvaluationResult(correct=1)  # of a group with one entity per side, if they are equal
_COUNTS = ("correct", "incorrect", "partial", "missed", "spurious")


@dataclass
class SchemeScore:
    """Counts and scores of a scheme; a partial match counts half."""

    correct: int = 0
    incorrect: int = 0
    partial: int = 0
    missed: int = 0
    spurious: int = 0
    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0


def scheme_scores(documents: Iterable[ScoredDocument]) -> dict[str, SchemeScore]:
    """Compute the scores of the four matching schemes of SemEval-2013 task 9 (Segura-Bedmar et al. 2013).

    A prediction matches if span and type are equal (``strict``), the span is equal (``exact``), spans overlap
    (``partial``), or spans overlap and the type is equal (``type``).
    """
    totals = {name: EvaluationResult() for name in _STRATEGIES}
    for document in documents:
        for group in overlapping_groups(document.gold, document.predicted):
            gold, predicted = ([SpanWithLastWord(*entity) for entity in side] for side in group)
            for name, strategy in _STRATEGIES.items():
                counted = strategy.evaluate(gold, predicted, [])[0] if gold != predicted else _RIGHT
                for count in _COUNTS:
                    setattr(totals[name], count, getattr(totals[name], count) + getattr(counted, count))
    for name, total in totals.items():
        total.compute_metrics(partial_or_type=name in ("partial", "type"))
    names = [one.name for one in fields(SchemeScore)]
    return {scheme: SchemeScore(**{name: getattr(total, name) for name in names}) for scheme, total in totals.items()}
