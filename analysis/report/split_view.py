"""What the page says of one split, beside its sentences."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from analysis.documents import ScoredDocument, count_entities
from analysis.intervals import precision_recall_f1, score_intervals
from analysis.pairs import KINDS, pair_entities
from analysis.report.calibration import Judged, Reliability, counts_at, judge, reliability
from analysis.report.charts import Chart, line_chart
from analysis.report.run_data import Split
from common.entities import Entity
from processors.examples import join_words

_THRESHOLDS = np.linspace(0, 1, 101)


class ScoreRow(NamedTuple):
    """A line of a table; ``interval`` is that of F1, ``support`` the number of gold entities."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int | None = None
    interval: tuple[float, float] | None = None


@dataclass
class SplitView:
    """One split, ready to be shown.

    Args:
        headline: name, value, and interval (``None`` for a single document) of F1, precision and recall.
        types, readings, parts: scores by type, in the schemes of SemEval-2013, by novelty and by length.
        calibration, thresholds: ``None`` where there are no confidences.
    """

    name: str
    results: Mapping[str, Any]
    documents: int
    headline: list[tuple[str, float, list[float] | None]]
    types: list[ScoreRow]
    readings: list[ScoreRow]
    parts: list[ScoreRow]
    calibration: Reliability | None
    thresholds: Chart | None

    @property
    def confusion(self) -> dict[str, Any]:
        found: dict[str, Any] = self.results["confusion"]
        return found


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
        readings=[_row(name, scores) for name, scores in results["schemes"].items()],
        parts=[
            *(_row(name, scores) for name, scores in (results.get("novelty") or {}).items()),
            *(_row(f"length {name}", scores) for name, scores in results["lengths"].items()),
        ],
        calibration=reliability(judged) if judged else None,
        thresholds=_threshold_chart(judged) if judged and len(judged.right) else None,
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


def _threshold_chart(judged: Judged) -> Chart:
    kept = _THRESHOLDS[judged.confidences.max() >= _THRESHOLDS]
    scores = 100 * precision_recall_f1(counts_at(judged, kept))  # (K, 3)
    curves = {
        name: list(zip(kept.tolist(), scores[:, column].tolist(), strict=True))
        for column, name in enumerate(("precision", "recall", "F1"))
    }
    return line_chart("Scores if only surer entities are kept, %", "confidence at least", curves)


Row = list[Any]


def sentence_rows(documents: Sequence[ScoredDocument], types: Sequence[str]) -> list[Row]:
    """A row a document: its id, its text, and its pairs of entities.

    A pair is its kind (a number into `analysis.pairs.KINDS`), the gold and the predicted entity as
    ``[type, start, end]`` with 0 for none, and the confidence, if there is one. Types are numbers into ``types``,
    places count UTF-16 units of the text, as JavaScript does.
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
