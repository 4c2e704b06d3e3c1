"""Label Studio: tasks of its JSON export, records of JSON-MIN, and tasks to import.

Offsets are code points since the end of 2021 and were UTF-16 units before; the text of each region shows which.
"""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from processors.examples import Example, Findings
from processors.formats.partial import partial_keys
from processors.spans import Source, Span, place_of

_LABELS = ("labels", "hypertextlabels", "paragraphlabels")
_MARKUP = re.compile(r"</[A-Za-z][^<>]*>|<br\s*/?>", re.IGNORECASE)
_NOT_TEXT = frozenset({"id", "created_at", "updated_at"})
_FILE = re.compile(r"(\w+://|/data/)\S+|\S+\.(png|jpe?g|gif|webp|bmp|svg|tiff?|wav|mp3|flac|ogg|mp4|pdf|html?|txt|csv)")


def is_task(record: dict[str, Any]) -> bool:
    """Whether a record is a task of the JSON export."""
    return isinstance(record.get("data"), dict)


def is_min_record(record: dict[str, Any]) -> bool:
    """Whether a record is from JSON-MIN, which has one record per annotation of a task."""
    return "annotation_id" in record and "annotator" in record


def read_task(record: dict[str, Any], source: Source, findings: Findings) -> tuple[str, list[Span] | None]:
    """Read the text of a task and the spans of its first annotation that is not cancelled; ``None`` without one."""
    annotations = _objects(record.get("annotations") or record.get("completions"), "annotations", source)
    finished = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    findings.add("cancelled annotations, left out", count=len(annotations) - len(finished))
    findings.add("annotations after the first of their text, left out", count=len(finished) - 1)
    for key in ("predictions", "drafts"):
        if isinstance(values := record.get(key), list):
            findings.add(f"{key}, not used", count=len(values))
    regions = _objects(finished[0].get("result"), "result", source) if finished else []
    findings.add("notes on regions, not used", count=sum(bool(region.get("meta")) for region in regions))
    text, spans = _marked(record["data"], regions, source, findings)
    return text, spans if finished else None


def read_min_record(record: dict[str, Any], source: Source, findings: Findings) -> tuple[str, list[Span]]:
    """Read text and spans of a JSON-MIN record, whose regions are stored under the name of their control tag."""
    controls = {key: value for key, value in record.items() if _is_list_of(value, "start") or _is_list_of(value, "end")}
    data = {key: value for key, value in record.items() if key not in controls}
    regions = [{"value": value} for values in controls.values() for value in values]
    others = [key for key, value in data.items() if isinstance(value, list) and value and not _is_dialogue(value)]
    findings.add(_MARKS_NO_TEXT, count=len(others))
    return _marked(data, regions, source, findings)


def guid_of(record: dict[str, Any], default: str) -> str:
    """Name of a task: the imported ``id`` of its text, else the number of the task."""
    data = record.get("data")
    names = (data.get("id") if isinstance(data, dict) else None, record.get("id"), default)
    return str(next(name for name in names if name is not None))


def task_of(example: Example) -> dict[str, Any]:
    """Convert an example to a task for import, with an annotation, or a prediction if it has confidences."""
    task: dict[str, Any] = {"data": {"id": example.guid, "text": example.text}, "annotations": [], "predictions": []}
    if example.entities is None:
        return task
    task["data"] |= partial_keys(example, "code_point")
    regions: list[dict[str, Any]] = []
    for number, entity in enumerate(example.entities):
        start, end = example.place(entity)
        value = {"start": start, "end": end, "text": (example.text or "")[start:end], "labels": [entity.type]}
        of_text = {"from_name": "label", "to_name": "text", "type": "labels", "value": value}
        regions.append({"id": f"entity-{number}", **of_text})
    if example.confidences is None:
        task["annotations"].append({"result": regions, "was_cancelled": False})
        return task
    for region, confidence in zip(regions, example.confidences, strict=True):
        region["score"] = confidence
    task["predictions"].append({"result": regions, "score": min(example.confidences, default=1.0)})
    return task


_MARKS_NO_TEXT = "Label Studio results that mark no text with a label, not used"


def _objects(values: Any, name: str, source: Source) -> list[dict[str, Any]]:
    if isinstance(values or [], list) and all(isinstance(value, dict) for value in values or []):
        return values or []
    raise source.error(f"{name} is not a list of objects, as Label Studio writes them")


def _marked(
    data: dict[str, Any], regions: list[dict[str, Any]], source: Source, findings: Findings
) -> tuple[str, list[Span]]:
    """Text of a task and spans of its regions that mark text; relations, choices etc. are only counted.

    A taxonomy marks text only if there are no labels; otherwise it describes the regions.
    """
    found = [(str(region.get("to_name")), region.get("value")) for region in regions]
    values = [(name, value) for name, value in found if isinstance(value, dict) and "start" in value and "end" in value]
    kinds = _LABELS if any(value.get(kind) for _, value in values for kind in _LABELS) else ("taxonomy",)
    marking = [(name, value) for name, value in values if any(value.get(kind) for kind in kinds)]
    findings.add(_MARKS_NO_TEXT, count=len(found) - len(marking))
    key = _text_key(data, marking, source)
    elsewhere = [name for name, _ in marking if name in data and name != key]
    findings.add("regions of another text of their task, left out", count=len(elsewhere))
    values_here = [value for name, value in marking if name not in elsewhere]
    text, starts = data[key], None
    if not isinstance(text, str):
        text, starts = _joined(text, source)
    elif any("hypertextlabels" in value for value in values_here) or (not values_here and _MARKUP.search(text)):
        parser = _Markup()
        parser.feed(text)
        parser.close()
        text = "".join(parser.parts)
    spans = []
    for value in values_here:
        labels = next(value[kind] for kind in kinds if value.get(kind))
        labels = [labels] if isinstance(labels, str) else labels
        if not isinstance(labels, list) or not all(isinstance(one, str | list) for one in labels):
            raise source.error(f"cannot read the region {value!r}; its labels are not a list of strings")
        findings.add("labels after the first of their region, left out", count=len(labels) - 1)
        label = "/".join(map(str, labels[0])) if isinstance(labels[0], list) else labels[0]
        surface = value["text"] if isinstance(value.get("text"), str) else None
        spans.append(Span(label, *_place(value, starts, source), surface))
    return text, spans


def _place(value: dict[str, Any], starts: Sequence[int] | None, source: Source) -> tuple[int, int]:
    """Start and end of a region in plain text, in marked-up text, or in paragraphs that begin at ``starts``."""
    try:
        if starts is not None:
            first, last = starts[place_of(value["start"])], starts[place_of(value["end"])]
            return first + place_of(value["startOffset"]), last + place_of(value["endOffset"])
        place = value.get("globalOffsets") or value
        return place_of(place["start"]), place_of(place["end"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        advice = "export again with a Label Studio that writes globalOffsets" if "hypertextlabels" in value else ""
        expected = advice or "expected whole numbers as start and end"
        raise source.error(f"cannot read the region {value!r}; {expected}") from error


def _text_key(data: dict[str, Any], marking: list[tuple[str, dict[str, Any]]], source: Source) -> str:
    """Key of the text in the data of a task: that of the regions, else ``text``, else the only candidate."""
    texts = {
        key: value
        for key, value in data.items()
        if key not in _NOT_TEXT and (_is_dialogue(value) or (isinstance(value, str) and not _FILE.fullmatch(value)))
    }
    for key in (*(name for name, _ in marking), "text"):
        if key in texts:
            return key
    surfaces = [value["text"] for _, value in marking if isinstance(value.get("text"), str)]
    fitting = [key for key, value in texts.items() if not surfaces or all(one in str(value) for one in surfaces)]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(fitting or data) or "nothing"
    message = "several of the task's data could be its text" if fitting else "no text among the task's data"
    raise source.error(f"{message} ({found}); expected it under the name text")


def _is_list_of(value: Any, key: str) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and key in one for one in value)


def _is_dialogue(value: Any) -> bool:
    return _is_list_of(value, "text") and not _is_list_of(value, "start")


def _joined(paragraphs: list[dict[str, Any]], source: Source) -> tuple[str, list[int]]:
    """Join paragraphs as lines of one text; also return the start of each."""
    texts = [paragraph["text"] for paragraph in paragraphs]
    if not all(isinstance(text, str) for text in texts):
        raise source.error("the text of a paragraph is not a string")
    starts = [sum(len(text) + 1 for text in texts[:number]) for number in range(len(texts))]
    return "\n".join(texts), starts


class _Markup(HTMLParser):
    """Extracts the text of HTML as Label Studio counts it: everything but tags, and a line break per ``<br>``."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br":
            self.parts.append("\n")
