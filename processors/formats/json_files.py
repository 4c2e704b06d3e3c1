"""JSON files: lines, arrays or objects of records in any shape that `processors.formats.records` reads."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processors.examples import DataError, Example, Findings
from processors.formats import label_studio
from processors.formats.records import RecordReader
from processors.formats.text_lines import read_lines
from processors.spans import Reading, Source

_BETWEEN = re.compile(r"[\s,:]*")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, reading: Reading) -> Iterator[Example]:
    """Read JSON lines, an array of records, a single record, or an object of sentences.

    Raises:
        DataError: after the last record, with all records that are broken, lack keys, or have spans outside the text.
    """
    findings = reading.findings
    records = RecordReader(reading, lambda: (value for _, value in read_records(path, Findings())))
    seen: set[str] = set()

    def examples(index: int, found: tuple[int, Any]) -> list[Example]:
        line, value = found
        record = _as_record(value, path, line)
        default = str(record.get("guid", f"{reading.split}-{index}"))
        source = Source(path, line, label_studio.guid_of(record, default))
        if source.guid in seen:
            if label_studio.is_min_record(record):
                findings.add("annotations after the first of their text, left out")
                return []
            findings.add("records with the id of an earlier one")
        seen.add(source.guid)
        return records.read(record, source)

    return reading.examples_of(enumerate(read_records(path, findings)), examples)


def _as_record(value: Any, path: Path, line: int) -> dict[str, Any]:
    """Return the record, or convert a spaCy pair: ``["text", {"entities": [[0, 4, "PER"]]}]``."""
    if _is_pair(value):
        return {"text": value[0], **value[1]}
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, found {type(value).__name__}", path, line)
    return value


def read_records(path: Path, findings: Findings) -> Iterator[tuple[int, Any]]:
    """Yield each record with its first line."""
    first = next((line.strip() for _, line in read_lines(path) if line.strip()), "")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        value = None
    is_array = first.startswith("[") and not _is_pair(value)
    is_spread = value is None and not first.endswith("}")
    if not (is_array or is_spread or value == {} or _has_sentences(value) or _has_pairs(value)):
        yield from _json_lines(path, findings)
        return
    text = "\n".join(line for _, line in read_lines(path))
    value = _parsed(text, path, 1, Findings() if is_array else findings) if text.strip() else {}
    if is_array:
        yield from _values_inside(text, findings)
    elif _has_pairs(value):
        yield from ((1, pair) for pair in value["annotations"] if pair is not None)
    elif _has_sentences(value):
        yield from _sentences(text, path, findings)
    elif value != {}:
        yield 1, value


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict)


def _has_sentences(value: Any) -> bool:
    entries = value.values() if isinstance(value, dict) else []
    return any(isinstance(entry, dict) and "sents" in entry for entry in entries)


def _has_pairs(value: Any) -> bool:
    """Whether this is output of a spaCy annotation tool: ``{"classes": [...], "annotations": [pair, ...]}``."""
    pairs = value.get("annotations") if isinstance(value, dict) else None
    return isinstance(pairs, list) and any(isinstance(pair, list) for pair in pairs)


def _json_lines(path: Path, findings: Findings) -> Iterator[tuple[int, Any]]:
    for number, line in read_lines(path):
        if line.strip():
            try:
                yield number, _parsed(line, path, number, findings)
            except DataError as error:
                findings.fault(error)


def _sentences(text: str, path: Path, findings: Findings) -> Iterator[tuple[int, Any]]:
    """Yield records of an object of sentences: ``{id: {"sents": "w w w", "ner_labels": "O B-LOC O"}}``."""
    values = _values_inside(text, findings)
    for (line, key), (_, entry) in zip(values, values, strict=True):
        strings = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
        if not strings or "sents" not in entry:
            message = f'entry {key!r} is not of the form {{"sents": "w w w", "ner_labels": "O B-LOC O"}}'
            findings.fault(DataError(message, path, line))
            continue
        record = {"id": key, "tokens": entry["sents"].split()}
        if "ner_labels" in entry:
            record["tags"] = entry["ner_labels"].split()
        yield line, record


def _values_inside(text: str, findings: Findings) -> Iterator[tuple[int, Any]]:
    """Yield the keys and values of the array or object in a text, each with its first line."""
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    position = _next_value(text, _next_value(text, 0) + 1)
    while text[position] not in "]}":
        line, counted = line + text.count("\n", counted, position), position
        value, end = decoder.raw_decode(text, position)
        yield line, _mended(value, text[position:end], findings)
        position = _next_value(text, end)


def _next_value(text: str, position: int) -> int:
    """Position of the next key or value, after white space, commas and colons."""
    found = _BETWEEN.match(text, position)
    return found.end() if found else position


def _parsed(text: str, path: Path, first_line: int, findings: Findings) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg} at column {error.colno}"
        raise DataError(message, path, first_line + error.lineno - 1) from error
    except (ValueError, RecursionError) as error:  # very long numbers, deep nesting, duplicate keys
        raise DataError(f"unreadable JSON: {error}", path, first_line) from error
    return _mended(value, text, findings)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r} in an object")
    return found


def _mended(value: Any, written: str, findings: Findings) -> Any:
    """Replace lone surrogates, which JSON can only contain as escapes."""
    if not _ESCAPED_SURROGATE.search(written):
        return value
    return json.loads(findings.mended(json.dumps(value, ensure_ascii=False)))
