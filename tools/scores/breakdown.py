"""The same scores on parts of the entities: by length, and by whether training had the name."""

from collections import defaultdict
from collections.abc import Callable, Sequence, Set

import numpy as np

from processors.tag_schemes import Entity
from tools.metrics import Score
from tools.scores.documents import ScoredDocument
from tools.scores.intervals import precision_recall_f1

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
    found = breakdown(documents, lambda _, entity: length_range(entity.end - entity.start))
    return {name: found[name] for name in LENGTHS if name in found}


LENGTHS = ("1", "2", "3-4", "5-8", "9-16", "17+")


def length_range(length: int) -> str:
    """The one of ``LENGTHS`` in which a length falls."""
    return LENGTHS[min((length - 1).bit_length(), len(LENGTHS) - 1)]


def scores_by_novelty(documents: Sequence[ScoredDocument], known: Set[str]) -> dict[str, Score]:
    """By whether the surface is among those that training annotates, whatever their type (Augenstein et al. 2017)."""
    found = breakdown(documents, lambda document, entity: SEEN if document.surface(entity) in known else UNSEEN)
    return {name: found.get(name, Score()) for name in (SEEN, UNSEEN)}
