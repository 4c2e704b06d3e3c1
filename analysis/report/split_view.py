"""One split in the report: its tables, its charts and its sentences."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from analysis.calibration import Judged, Reliability, counts_at, judge, reliability
from analysis.dial import DialRow
from analysis.documents import ScoredDocument, count_entities, precision_recall_f1, score_intervals
from analysis.pairs import KINDS, pair_entities
from analysis.report.charts import draw_calibration, draw_dials, draw_lines, svg
from analysis.report.run_data import Split
from common.entities import Entity
from processors.examples import join_words


@dataclass
class SplitView(Split):
    """What the template shows of a split, beside its scores.

    Args:
        intervals: of the F1 of each type; empty for a single document.
        parts: scores by nesting, novelty and length.
        calibration: ``None`` if there are no confidences.
        confidence_charts: SVG.
    """

    intervals: dict[str, list[float]]
    parts: dict[str, Any]
    calibration: Reliability | None
    confidence_charts: list[Markup]


def split_view(split: Split) -> SplitView:
    results = split.results
    judged = judge(split.documents) if split.has_confidences else None
    found = {name: _interval(name, split.documents) for name in results["types"]}
    return SplitView(
        split.name,
        results,
        split.documents,
        split.dials,
        intervals={name: interval for name, interval in found.items() if interval},
        parts=(results.get("nesting") or {})
        | (results.get("novelty") or {})
        | {f"length {name}": one for name, one in results["lengths"].items()},
        calibration=reliability(judged) if judged else None,
        confidence_charts=_confidence_charts(judged, split) if judged and len(judged.right) else [],
    )


def _interval(name: str, documents: list[ScoredDocument]) -> list[float] | None:
    """Interval of the F1 of a type; ``None`` for a single document."""
    of_type = [
        one._replace(
            gold=[entity for entity in one.gold if entity.type == name],
            predicted=[entity for entity in one.predicted if entity.type == name],
        )
        for one in documents
    ]
    return score_intervals(count_entities(of_type)).get("f1")


def _confidence_charts(judged: Judged, split: Split) -> list[Markup]:
    found = reliability(judged)
    thresholds = np.linspace(0, judged.confidences.max(), 101)
    scores = 100 * precision_recall_f1(counts_at(judged, thresholds))  # (K, 3)
    curves = {name: list(zip(thresholds, scores[:, place], strict=True)) for place, name in enumerate(("P", "R", "F1"))}
    bins = (
        f"{one.size} entities of mean confidence {one.confidence:.0%} are {one.precision:.0%} correct"
        for one in found.bins
    )
    charts = [svg(partial(draw_calibration, found=found), "Share correct by confidence", "; ".join(bins), height=3.1)]
    if split.dials is None:
        least = svg(
            partial(draw_lines, x_label="least confidence", curves=curves),
            "Scores if less confident entities are dropped, %",
            f"best F1 {scores[:, 2].max():.2f} at {thresholds[scores[:, 2].argmax()]:.2f}",
        )
        return [*charts, least]
    rows = [DialRow(**row) for row in split.results.get("dial") or ()]
    points = (f"asked for {row.asked}: precision {row.precision:.1%}, recall {row.recall:.1%}" for row in rows)
    title = "Precision and recall of all thresholds on probabilities"
    return [*charts, svg(partial(draw_dials, dials=split.dials, rows=rows), title, "; ".join(points), height=3.1)]


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
