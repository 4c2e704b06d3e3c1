"""Label Studio: tasks of its JSON export, records of JSON-MIN, and tasks to import.

Offsets are code points since the end of 2021 and were UTF-16 units before; the text that each region repeats tells.
"""

from collections.abc import Sequence
from typing import Any

from processors.examples import Example, Findings
from processors.spans import Source, Span, place_of
from processors.tag_schemes import Entity, tags_to_entities

_TASK_KEYS = ("annotations", "completions", "predictions")


def is_task(record: dict[str, Any]) -> bool:
    """Whether a record is a task of the JSON export."""
    return isinstance(record.get("data"), dict) and any(key in record for key in _TASK_KEYS)


def is_min_record(record: dict[str, Any]) -> bool:
    """Whether a record is one of JSON-MIN, which has one for each annotation of a task."""
    return "annotation_id" in record and "annotator" in record


def read_task(record: dict[str, Any], source: Source, findings: Findings) -> tuple[str, list[Span] | None]:
    """Text and spans of a task: those of its first annotation that is not cancelled, ``None`` without one."""
    text = _text_of(record["data"], source)
    annotations = _objects(record.get("annotations") or record.get("completions"), "annotations", source)
    finished = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    _count(findings, "cancelled annotations, left out", len(annotations) - len(finished))
    _count(findings, "annotations beside the first of their text, left out", len(finished) - 1)
    _count(findings, "predictions beside annotations, not used", len(record.get("predictions") or []))
    if not finished:
        return text, None
    regions = _objects(finished[0].get("result"), "result", source)
    return text, _spans([region.get("value") for region in regions], source, findings)


def read_min_record(record: dict[str, Any], source: Source, findings: Findings) -> tuple[str, list[Span]]:
    """Text and spans of a JSON-MIN record, whose regions stand under the name of their control tag."""
    regions = [value for values in record.values() if isinstance(values, list) for value in values]
    return _text_of(record, source), _spans(regions, source, findings)


def guid_of(record: dict[str, Any], default: str) -> str:
    """The name of a task: that which was imported with its text, else its number."""
    data = record.get("data")
    imported = data.get("id") if isinstance(data, dict) else None
    return str(record.get("id", default) if imported is None else imported)


def task_of(example: Example) -> dict[str, Any]:
    """A task to import: with an annotation, or with a prediction where the entities have confidences."""
    text, offsets = example.text or "", example.offsets or []
    task: dict[str, Any] = {"data": {"id": example.guid, "text": text}, "annotations": [], "predictions": []}
    if example.labels is None:
        return task
    entities = tags_to_entities(example.labels)
    regions = [_region(number, entity, text, offsets) for number, entity in enumerate(entities)]
    if example.confidences is None:
        task["annotations"].append({"result": regions, "was_cancelled": False})
        return task
    for region, confidence in zip(regions, example.confidences, strict=True):
        region["score"] = confidence
    task["predictions"].append({"result": regions, "score": min(example.confidences, default=1.0)})
    return task


def _region(number: int, entity: Entity, text: str, offsets: Sequence[tuple[int, int]]) -> dict[str, Any]:
    start, end = offsets[entity.start][0], offsets[entity.end - 1][1]
    value = {"start": start, "end": end, "text": text[start:end], "labels": [entity.type]}
    return {"id": f"entity-{number}", "from_name": "label", "to_name": "text", "type": "labels", "value": value}


def _objects(values: Any, name: str, source: Source) -> list[dict[str, Any]]:
    if isinstance(values or [], list) and all(isinstance(value, dict) for value in values or []):
        return values or []
    raise source.error(f"{name} is not a list of objects, as Label Studio writes them")


def _text_of(data: dict[str, Any], source: Source) -> str:
    if isinstance(data.get("text"), str):
        return data["text"]
    found = ", ".join(data) or "nothing"
    raise source.error(f"no text among the task's data ({found}); expected it under the name text")


def _spans(values: list[Any], source: Source, findings: Findings) -> list[Span]:
    """The regions that mark text; others, such as relations and choices for a whole text, are counted."""
    spans = []
    for value in values:
        labels = value.get("labels") if isinstance(value, dict) else None
        labels = [labels] if isinstance(labels, str) else labels
        if not labels or "start" not in value or "end" not in value:
            findings.add("Label Studio results that mark no text with a label, not used")
            continue
        _count(findings, "labels beside the first of their region, left out", len(labels) - 1)
        read = value.get("text")
        try:
            place = place_of(value["start"]), place_of(value["end"])
            spans.append(Span(str(labels[0]), *place, read if isinstance(read, str) else None))
        except (TypeError, ValueError) as error:
            raise source.error(f"cannot read the region {value!r}; expected whole numbers as start and end") from error
    return spans


def _count(findings: Findings, kind: str, count: int) -> None:
    if count > 0:
        findings.add(kind, count=count)
