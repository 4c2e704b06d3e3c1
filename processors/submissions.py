"""Predictions in the form that a benchmark's server takes."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processors.examples import without_lone_surrogates
from processors.glue_tasks import GlueTask
from processors.spans import Span

_SCORES = (0.0, 5.0)  # of STS-B


def json_line(record: Mapping[str, Any]) -> str:
    """A record on one line, readable as UTF-8; lone surrogates are replaced."""
    return without_lone_surrogates(json.dumps(record, ensure_ascii=False))[0]


def cluener_line(guid: str, text: str, entities: Sequence[Span]) -> str:
    """A line of CLUENER's ``cluener_predict.json``: ``{"id", "label": {type: {surface: [[start, last]]}}}``."""
    label: dict[str, dict[str, list[list[int]]]] = {}
    for entity in entities:
        surface = text[entity.start : entity.end]
        label.setdefault(entity.type, {}).setdefault(surface, []).append([entity.start, entity.end - 1])
    return json_line({"id": int(guid) if guid.isdecimal() else guid, "label": label})


def glue_lines(task: GlueTask, predictions: Sequence[float]) -> list[str]:
    """The lines of a submission to GLUE: a header, then number and class, or score, of each text."""
    if task.is_regression:
        low, high = _SCORES
        values = [f"{min(max(score, low), high):.3f}" for score in predictions]
    else:
        values = [task.classes[int(index)] for index in predictions]
    return ["index\tprediction", *(f"{number}\t{value}" for number, value in enumerate(values))]


SUBMISSIONS: dict[str, Callable[[str, str, Sequence[Span]], str]] = {"cluener": cluener_line}
