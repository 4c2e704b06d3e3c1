"""All that is said of a split beside the headline."""

from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from tools.metrics import Score
from tools.scores.breakdown import scores_by_length, scores_by_novelty
from tools.scores.documents import ScoredDocument, count_entities, digest_of
from tools.scores.intervals import score_intervals
from tools.scores.pairs import all_pairs, error_kinds, type_confusion
from tools.scores.schemes import SchemeScore, scheme_scores


@dataclass
class Analysis:
    """Scores of one model on one split.

    Args:
        intervals: of 95 %, over documents, for precision, recall and F1; empty where there is only one document.
        schemes: those of SemEval-2013; ``exact`` asks for the borders only, ``type`` for the type only.
        errors: how many pairs of gold and predicted entities there are of each kind.
        confusion: which type was taken for which; see `tools.scores.pairs.type_confusion`.
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
