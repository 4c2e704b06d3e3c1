"""All that is said of a split beside the headline."""

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
    """Scores of one model on one split.

    Args:
        intervals: of 95 %, over documents, for precision, recall and F1; empty where there is only one document.
        schemes: those of SemEval-2013; ``exact`` asks for the borders only, ``type`` for the type only.
        errors: how many pairs of gold and predicted entities there are of each kind.
        confusion: which type was taken for which; see `analysis.pairs.type_confusion`.
        lengths: scores by the number of words.
        novelty: scores by whether train has the name; ``None`` where there is no train split.
        documents: a hash of the texts and gold entities, to tell whether two models were scored on the same.
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
    """Compares gold and predicted entities; ``known_names`` are the surfaces that train annotates."""
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
    """Nothing predicted at all, or nothing of a type that there is; see `analysis.pairs.type_confusion`."""
    types, rows = confusion["types"], confusion["matrix"]
    gold = {name: sum(row) + missed for name, row, missed in zip(types, rows, confusion["missed"], strict=True)}
    columns = zip(*rows, strict=True)
    predicted = {
        name: sum(column) + spurious
        for name, column, spurious in zip(types, columns, confusion["spurious"], strict=True)
    }
    if any(gold.values()) and not any(predicted.values()):
        advice = "train longer, or raise the learning rates (a new head wants 1e-3 to 1e-2)"
        yield f"nothing is predicted but O, where there are {sum(gold.values())} entities; {advice}"
        return
    never = [f"{name} ({count} in the gold data)" for name, count in gold.items() if count and not predicted[name]]
    if never:
        yield f"no entity is ever predicted of type {', '.join(never)}"
