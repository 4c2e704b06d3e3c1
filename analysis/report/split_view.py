"""One split in the report: its tables, its charts and its sentences."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from analysis.documents import ScoredDocument, count_entities, precision_recall_f1, score_intervals
from analysis.pairs import KINDS, pair_entities
from analysis.report.calibration import Judged, Reliability, counts_at, judge, reliability
from analysis.report.charts import draw_calibration, draw_lines, svg
from analysis.report.run_data import Split
from common.entities import Entity
from processors.examples import join_words


class ScoreRow(NamedTuple):
    """A row of a table; ``interval`` is the confidence interval of F1, ``support`` the number of gold entities."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int | None = None
    interval: tuple[float, float] | None = None


@dataclass
class SplitView:
    """What the template shows of a split.

    Args:
        headline: name, value and interval of F1, precision and recall; no interval for a single document.
        types, schemes, parts: scores by type, by scheme of SemEval-2013, and by novelty and length.
        calibration: ``None`` if there are no confidences.
        confidence_charts: SVG.
    """

    name: str
    results: Mapping[str, Any]
    documents: int
    headline: list[tuple[str, float, list[float] | None]]
    types: list[ScoreRow]
    schemes: list[ScoreRow]
    parts: list[ScoreRow]
    calibration: Reliability | None
    confidence_charts: list[Markup]


def split_view(split: Split) -> SplitView:
    results = split.results
    judged = judge(split.documents) if split.has_confidences else None
    names = {"F1": "f1", "precision": "precision", "recall": "recall"}
    return SplitView(
        name=split.name,
        results=results,
        documents=len(split.documents),
        headline=[(label, results[name], results["intervals"].get(name)) for label, name in names.items()],
        types=[_type_row(name, scores, split.documents) for name, scores in sorted(results["types"].items())],
        schemes=[_row(name, scores) for name, scores in results["schemes"].items()],
        parts=[
            *(_row(name, scores) for name, scores in (results.get("novelty") or {}).items()),
            *(_row(f"length {name}", scores) for name, scores in results["lengths"].items()),
        ],
        calibration=reliability(judged) if judged else None,
        confidence_charts=_confidence_charts(judged) if judged and len(judged.right) else [],
    )


def _row(name: str, scores: Mapping[str, Any], interval: tuple[float, float] | None = None) -> ScoreRow:
    return ScoreRow(name, scores["precision"], scores["recall"], scores["f1"], scores.get("support"), interval)


def _type_row(name: str, scores: Mapping[str, Any], documents: list[ScoredDocument]) -> ScoreRow:
    of_type = [
        one._replace(
            gold=[entity for entity in one.gold if entity.type == name],
            predicted=[entity for entity in one.predicted if entity.type == name],
        )
        for one in documents
    ]
    interval = score_intervals(count_entities(of_type)).get("f1")
    return _row(name, scores, (interval[0], interval[1]) if interval else None)


def _confidence_charts(judged: Judged) -> list[Markup]:
    found = reliability(judged)
    thresholds = np.linspace(0, judged.confidences.max(), 101)
    scores = 100 * precision_recall_f1(counts_at(judged, thresholds))  # (K, 3)
    curves = {name: list(zip(thresholds, scores[:, place], strict=True)) for place, name in enumerate(("P", "R", "F1"))}
    bins = (
        f"{one.size} entities of mean confidence {one.confidence:.0%} are {one.precision:.0%} correct"
        for one in found.bins
    )
    return [
        svg(partial(draw_calibration, found=found), "Share correct by confidence", "; ".join(bins), height=3.1),
        svg(
            partial(draw_lines, x_label="least confidence", curves=curves),
            "Scores if less confident entities are dropped, %",
            f"best F1 {scores[:, 2].max():.2f} at {thresholds[scores[:, 2].argmax()]:.2f}",
        ),
    ]


Row = list[Any]


def sentence_rows(documents: Sequence[ScoredDocument], types: Sequence[str]) -> list[Row]:
    """One row per document for the page's script: its id, its text, and its pairs of entities.

    A pair is its kind (an index into `analysis.pairs.KINDS`), the gold and the predicted entity as
    ``[type, start, end]`` with 0 for none, and the confidence if there is one. Types are indices into ``types``;
    ``start`` and ``end`` count UTF-16 units of the text, as JavaScript does.
    """
    numbers = {name: index for index, name in enumerate(types)}
    return [_sentences_row(document, numbers) for document in documents]


def _sentences_row(document: ScoredDocument, types: dict[str, int]) -> Row:
    text, offsets = join_words(document.words)
    wide = [position for position, character in enumerate(text) if ord(character) > 0xFFFF]
    sureness = dict(zip(document.predicted, document.confidences, strict=False))

    def place(entity: Entity | None) -> Row | int:
        if entity is None:
            return 0
        start, end = offsets[entity.first_word][0], offsets[entity.last_word][1]
        return [types[entity.type], start + bisect_right(wide, start - 1), end + bisect_right(wide, end - 1)]

    pairs = []
    for pair in pair_entities(document.gold, document.predicted):
        confidence = sureness.get(pair.predicted) if pair.predicted else None
        sure = [] if confidence is None else [round(confidence, 3)]
        pairs.append([KINDS.index(pair.kind), place(pair.gold), place(pair.predicted), *sure])
    return [document.guid, text, sorted(pairs, key=lambda pair: min(place[1] for place in pair[1:3] if place))]
