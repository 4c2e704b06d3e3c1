"""Detailed analysis of a model's predictions on a split."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from analysis.documents import ScoredDocument, count_entities, digest_of
from analysis.intervals import score_intervals
from analysis.metrics import Score
from analysis.pairs import all_pairs, error_kinds, scores_by_length, scores_by_novelty, type_confusion
from analysis.schemes import SchemeScore, scheme_scores


@dataclass
class Analysis:
    """Detailed scores of one model on one split.

    Args:
        intervals: 95 % intervals over documents of precision, recall and F1; empty for a single document.
        schemes: scores of the SemEval-2013 schemes; ``exact`` ignores the type, ``type`` ignores the boundaries.
        errors: number of pairs of gold and predicted entities, by kind of error.
        confusion: type confusion matrix, see `analysis.pairs.type_confusion`.
        lengths: scores by entity length in words.
        novelty: scores of entities seen and unseen in train; ``None`` without a train split.
        documents: hash of texts and gold entities, to check that two models were scored on the same data.
    """

    intervals: dict[str, list[float]]
    schemes: dict[str, SchemeScore]
    errors: dict[str, int]
    confusion: dict[str, Any]
    lengths: dict[str, Score]
    novelty: dict[str, Score] | None
    documents: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def analyse(documents: Sequence[ScoredDocument], known_names: Set[str] | None) -> Analysis:
    """Compare gold and predicted entities.

    Args:
        known_names: texts of the entities in train; ``None`` without a train split.
    """
    pairs = all_pairs(documents)
    return Analysis(
        intervals=score_intervals(count_entities(documents)),
        schemes=scheme_scores(documents),
        errors=error_kinds(pairs),
        confusion=type_confusion(pairs),
        lengths=scores_by_length(documents),
        novelty=None if known_names is None else scores_by_novelty(documents, known_names),
        documents=digest_of(documents),
    )


def suspicions(confusion: dict[str, Any]) -> Iterator[str]:
    """Yield warnings if nothing is predicted at all, or nothing of some type of the gold data.

    Args:
        confusion: from `analysis.pairs.type_confusion`.
    """
    types, rows = confusion["types"], confusion["matrix"]
    gold = {name: sum(row) + missed for name, row, missed in zip(types, rows, confusion["missed"], strict=True)}
    columns = zip(*rows, strict=True)
    predicted = {
        name: sum(column) + spurious
        for name, column, spurious in zip(types, columns, confusion["spurious"], strict=True)
    }
    if any(gold.values()) and not any(predicted.values()):
        advice = "train longer, or raise the learning rates (a new head needs 1e-3 to 1e-2)"
        yield f"only O is predicted, but there are {sum(gold.values())} gold entities; {advice}"
        return
    never = [f"{name} ({count} in the gold data)" for name, count in gold.items() if count and not predicted[name]]
    if never:
        yield f"no entities are predicted of type {', '.join(never)}"
