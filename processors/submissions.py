"""Predictions in the form that a benchmark's server takes."""

import json
from collections.abc import Callable, Sequence

from processors.tag_schemes import Entity


def cluener_line(guid: str, text: str, entities: Sequence[Entity]) -> str:
    """A line of CLUENER's ``cluener_predict.json``: ``{"id", "label": {type: {surface: [[start, last]]}}}``."""
    label: dict[str, dict[str, list[list[int]]]] = {}
    for entity in entities:
        surface = text[entity.start : entity.end]
        label.setdefault(entity.type, {}).setdefault(surface, []).append([entity.start, entity.end - 1])
    return json.dumps({"id": int(guid) if guid.isdigit() else guid, "label": label}, ensure_ascii=False)


SUBMISSIONS: dict[str, Callable[[str, str, Sequence[Entity]], str]] = {"cluener": cluener_line}
