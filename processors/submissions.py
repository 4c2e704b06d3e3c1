"""Predictions in the form that a benchmark's server takes."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processors.tag_schemes import Entity

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def json_line(record: Mapping[str, Any]) -> str:
    """A record on one line, readable as UTF-8: escaped only where a text holds half a surrogate pair."""
    line = json.dumps(record, ensure_ascii=False)
    return json.dumps(record) if _LONE_SURROGATE.search(line) else line


def cluener_line(guid: str, text: str, entities: Sequence[Entity]) -> str:
    """A line of CLUENER's ``cluener_predict.json``: ``{"id", "label": {type: {surface: [[start, last]]}}}``."""
    label: dict[str, dict[str, list[list[int]]]] = {}
    for entity in entities:
        surface = text[entity.start : entity.end]
        label.setdefault(entity.type, {}).setdefault(surface, []).append([entity.start, entity.end - 1])
    return json_line({"id": int(guid) if guid.isdecimal() else guid, "label": label})


SUBMISSIONS: dict[str, Callable[[str, str, Sequence[Entity]], str]] = {"cluener": cluener_line}
