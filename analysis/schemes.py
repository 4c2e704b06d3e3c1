"""Scores of the four matching schemes of SemEval-2013 task 9 (Segura-Bedmar et al. 2013)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from nervaluate.entities import Entity as SpanWithLastWord
from nervaluate.entities import EvaluationResult
from nervaluate.strategies import EntityTypeEvaluation, ExactEvaluation, PartialEvaluation, StrictEvaluation

from analysis.documents import ScoredDocument
from analysis.pairs import overlapping_groups
from common.entities import Entity

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
    """Compute scores by scheme.

    A prediction matches if span and type are equal (``strict``), the span is equal (``exact``), spans overlap
    (``partial``), or spans overlap and the type is equal (``type``).
    """
    totals = {name: EvaluationResult() for name in _STRATEGIES}
    for document in documents:
        for group in overlapping_groups(document.gold, document.predicted):
            gold, predicted = map(_with_last_word, group)
            for name, strategy in _STRATEGIES.items():
                _add(totals[name], strategy.evaluate(gold, predicted, [])[0] if gold != predicted else _RIGHT)
    return {name: _score(total, halves=name in ("partial", "type")) for name, total in totals.items()}


def _add(total: EvaluationResult, counted: EvaluationResult) -> None:
    for name in _COUNTS:
        setattr(total, name, getattr(total, name) + getattr(counted, name))


def _score(total: EvaluationResult, halves: bool) -> SchemeScore:
    total.compute_metrics(partial_or_type=halves)
    return SchemeScore(**{one.name: getattr(total, one.name) for one in fields(SchemeScore)})


def _with_last_word(entities: Sequence[Entity]) -> list[SpanWithLastWord]:
    return [SpanWithLastWord(*entity) for entity in entities]
