"""Detailed analysis of a model's predictions on a split, and its tables for the terminal."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, astuple, dataclass
from itertools import chain, islice, product
from typing import Any

import numpy as np
from rich.table import Table

from analysis.calibration import Reliability, judge, reliability
from analysis.dial import DialRow
from analysis.documents import ScoredDocument, count_entities, digest_of, score_intervals
from analysis.metrics import EntityScores, Score
from analysis.pairs import (
    SchemeScore,
    all_pairs,
    error_kinds,
    scheme_scores,
    scores_by_length,
    scores_by_nesting,
    scores_by_novelty,
    type_confusion,
)
from common.entities import Entity
from common.log import console_table

_CONFUSIONS_SHOWN = 10


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
        nesting: scores of all entities, the outermost ones and those inside another; ``None`` without nested entities.
        calibration: calibration of the confidences; ``None`` without confidences.
        dial: precision and recall at thresholds that were chosen on dev; ``None`` if the head has no candidates.
        documents: hash of texts and gold entities, to check that two models were scored on the same data.
    """

    intervals: dict[str, list[float]]
    schemes: dict[str, SchemeScore]
    errors: dict[str, int]
    confusion: dict[str, Any]
    lengths: dict[str, Score]
    novelty: dict[str, Score] | None
    nesting: dict[str, Score] | None
    calibration: Reliability | None
    dial: list[DialRow] | None
    documents: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def analyse(
    documents: Sequence[ScoredDocument],
    known_names: Set[str] | None,
    dial: list[DialRow] | None = None,
    all_gold: Sequence[Sequence[Entity]] | None = None,
) -> Analysis:
    """Compare gold and predicted entities.

    Args:
        known_names: texts of the entities in train; ``None`` without a train split.
        dial: see `Analysis`.
        all_gold: gold entities of each document, if it has more of them than the head can express.
    """
    golds = all_gold if all_gold is not None else [one.gold for one in documents]
    complete = [one._replace(gold=list(gold)) for one, gold in zip(documents, golds, strict=True)]
    with_confidences = all(len(one.confidences) == len(one.predicted) for one in documents)
    pairs = all_pairs(documents)
    return Analysis(
        intervals=score_intervals(count_entities(documents)),
        schemes=scheme_scores(documents),
        errors=error_kinds(pairs),
        confusion=type_confusion(pairs),
        lengths=scores_by_length(documents),
        novelty=None if known_names is None else scores_by_novelty(documents, known_names),
        nesting=scores_by_nesting(complete),
        calibration=reliability(judge(documents)) if with_confidences else None,
        dial=dial,
        documents=digest_of(documents),
    )


def suspicions(confusion: dict[str, Any]) -> Iterator[str]:
    """Yield warnings if nothing is predicted at all, or nothing of some type of the gold data.

    Args:
        confusion: from `analysis.pairs.type_confusion`.
    """
    types = confusion["types"]
    matrix = np.array(confusion["matrix"], int).reshape(len(types), len(types))
    gold = dict(zip(types, (matrix.sum(1) + confusion["missed"]).tolist(), strict=True))
    predicted = dict(zip(types, (matrix.sum(0) + confusion["spurious"]).tolist(), strict=True))
    if any(gold.values()) and not any(predicted.values()):
        advice = "train longer, or raise the learning rates (a new head needs 1e-3 to 1e-2)"
        yield f"only O is predicted, but there are {sum(gold.values())} gold entities; {advice}"
        return
    never = [f"{name} ({count} in the gold data)" for name, count in gold.items() if count and not predicted[name]]
    if never:
        yield f"no entities are predicted of type {', '.join(never)}"


def score_table(scores: EntityScores, title: str, intervals: Mapping[str, Sequence[float]] | None = None) -> Table:
    """Make the table of scores by type and their average, with 95 % intervals if given."""
    rows = [(name, *_percent(score), str(score.support)) for name, score in sorted(scores.types.items())]
    rows.append(("micro", *_percent(scores.micro), str(scores.micro.support)))
    if intervals:
        rows.append(("95 % interval", *(f"{100 * low:.1f}-{100 * high:.1f}" for low, high in intervals.values())))
    if scores.strict:
        rows.append(("strict by scheme", *_percent(scores.strict), str(scores.strict.support)))
    table = console_table(("type", "precision", "recall", "F1", "support"), rows, title=title)
    if scores.types:
        table.rows[len(scores.types) - 1].end_section = True
    return table


def analysis_tables(analysis: Analysis) -> Table:
    """Make the tables of matching schemes, parts, errors, confusions, calibration and operating points."""
    by_length = {f"length {name}": score for name, score in analysis.lengths.items()}
    parts = {**(analysis.nesting or {}), **(analysis.novelty or {}), **by_length}
    readings = [(name, *_percent(score)) for name, score in analysis.schemes.items()]
    part_rows = [(name, *_percent(score), str(score.support)) for name, score in parts.items()]
    errors = [(kind, str(number)) for kind, number in analysis.errors.items()]
    confused = islice(confusions(analysis.confusion), _CONFUSIONS_SHOWN)
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        console_table(("reading", "P", "R", "F1"), readings),
        console_table(("part", "P", "R", "F1", "support"), part_rows),
    )
    grid.add_row(
        console_table(("error", "entities"), errors),
        console_table(("gold", "predicted", "entities"), confused, names=2),
    )
    tables = []
    if analysis.calibration is not None:
        numbers = {"expected error": analysis.calibration.error, "Brier score": analysis.calibration.brier}
        tables.append(console_table(("calibration", ""), [(name, f"{value:.4f}") for name, value in numbers.items()]))
    if analysis.dial:
        dial = [(row.asked, *(f"{100 * value:.2f}" for value in list(astuple(row))[1:])) for row in analysis.dial]
        tables.append(console_table(("asked of each type", "dev P", "dev R", "P", "R"), dial))
    if tables:
        grid.add_row(*tables)
    return grid


def confusions(confusion: dict[str, Any]) -> list[tuple[str, str, str]]:
    """List gold type, predicted type and count, most frequent first; ``-`` for missed and spurious entities."""
    types = confusion["types"]
    counted = zip(product(types, repeat=2), chain.from_iterable(confusion["matrix"]), strict=True)
    cells = [(gold, predicted, number) for (gold, predicted), number in counted if gold != predicted]
    cells += [(gold, "-", number) for gold, number in zip(types, confusion["missed"], strict=True)]
    cells += [("-", predicted, number) for predicted, number in zip(types, confusion["spurious"], strict=True)]
    most_frequent_first = sorted(cells, key=lambda cell: -cell[2])
    return [(gold, predicted, str(number)) for gold, predicted, number in most_frequent_first if number]


def _percent(score: Score | SchemeScore) -> list[str]:
    return [f"{100 * number:.2f}" for number in (score.precision, score.recall, score.f1)]
