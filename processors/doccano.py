"""doccano: lines of its JSONL, which name spans ``label``, ``labels`` or, with relations, ``entities``."""

from typing import Any

from processors.examples import Example, Findings
from processors.offsets import in_utf16
from processors.tag_schemes import tags_to_entities


def count_unused(record: dict[str, Any], findings: Findings) -> None:
    """Counts what a line holds beside its text and spans."""
    for key, kind in (("relations", "relations, not used"), ("Comments", "comments, not used")):
        values = record.get(key)
        if isinstance(values, list) and values:
            findings.add(kind, count=len(values))


def record_of(example: Example, offset_unit: str = "code_point") -> dict[str, Any]:
    """A line to import; an unlabelled text has no ``label``."""
    text, offsets = example.text or "", example.offsets or []
    record: dict[str, Any] = {"id": example.guid, "text": text}
    if example.labels is not None:
        places = [
            (offsets[first][0], offsets[after - 1][1], kind) for kind, first, after in tags_to_entities(example.labels)
        ]
        if offset_unit == "utf16":
            places = [(in_utf16(text, start), in_utf16(text, end), kind) for start, end, kind in places]
        record["label"] = [list(place) for place in places]
    return record
