"""JSON files: tokens with tags, text with spans (CLUENER, doccano, Label Studio), and ``{"0": {"sents", ...}}``."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processors import doccano, label_studio
from processors.column_reader import checked_tag, tag_keys
from processors.examples import DataError, Example
from processors.spans import Source, Span, SpanReader, place_of
from processors.tag_schemes import tags_to_entities
from processors.text_lines import read_lines
from processors.word_cutting import find_words

_TOKEN_KEYS = ("tokens", "words")
_TAG_KEYS = ("tags", "ner_tags", "labels")
_SPAN_KEYS = ("entities", "spans", "label", "labels")
_BETWEEN = re.compile(r"[\s,:]*")


def read_json(
    path: Path,
    split: str,
    reader: SpanReader | None = None,
    labelled: bool = True,
    tag_column: str = "last",
    plain_tags: bool = False,
) -> Iterator[Example]:
    """Reads JSON lines, an array of records, or one JSON object of sentences, whichever the file holds.

    Args:
        path: the file.
        split: names the examples that have no ``id``.
        reader: cuts texts into words and lays spans over them.
        labelled: whether an example without labels is an error; Label Studio's tasks that nobody has annotated are
            left out then.
        tag_column: key of the tags of tokens, with or without ``_tags``; ``last`` takes the usual ones.
        plain_tags: these tags are classes of single words, as in `processors.column_reader.read_columns`.

    Raises:
        DataError: broken JSON, missing keys, or spans that do not fit the text.
    """
    reader = reader or SpanReader()
    asked = tag_keys(tag_column, _TAG_KEYS)
    annotated: set[str] = set()
    for index, (line, record) in enumerate(_records(path)):
        source = Source(path, line, label_studio.guid_of(record, str(record.get("guid", f"{split}-{index}"))))
        if label_studio.is_min_record(record):
            if source.guid in annotated:
                reader.findings.add("annotations beside the first of their text, left out")
                continue
            annotated.add(source.guid)
        try:
            example = _read_record(record, source, reader, asked, plain_tags)
        except DataError as error:
            reader.findings.fault(error)
            continue
        if labelled and example.labels is None:
            if label_studio.is_task(record):
                reader.findings.add("tasks without an annotation, left out")
            else:
                expected = f"tokens and {'/'.join(asked)}, or text and spans"
                message = f"no labels (keys: {', '.join(record)}); expected {expected}"
                reader.findings.fault(DataError(message, path, line))
            continue
        yield example
    reader.findings.raise_faults()


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record with the line on which it begins."""
    first = next((line.strip() for _, line in read_lines(path) if line.strip()), "")
    if first.startswith("["):
        return _array(path)
    return _object_of_sentences(path) if _is_one_object(first) else _json_lines(path)


def _is_one_object(first_line: str) -> bool:
    try:
        value = json.loads(first_line)
    except json.JSONDecodeError:
        return True
    return isinstance(value, dict) and all(isinstance(entry, dict) and "sents" in entry for entry in value.values())


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        if line.strip():
            yield number, _parsed(line, dict, path, number)


def _object_of_sentences(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    values = _values_inside(path, dict)
    for (line, key), (_, entry) in zip(values, values, strict=True):
        strings = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
        if not strings or "sents" not in entry:
            message = f'entry {key!r} is not of the form {{"sents": "w w w", "ner_labels": "O B-LOC O"}}'
            raise DataError(message, path, line)
        record = {"id": key, "tokens": entry["sents"].split()}
        if "ner_labels" in entry:
            record["tags"] = entry["ner_labels"].split()
        yield line, record


def _array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, value in _values_inside(path, list):
        yield line, _checked(value, dict, path, line)


def _values_inside(path: Path, kind: type) -> Iterator[tuple[int, Any]]:
    """The values of the array or object that a file is, keys among them, each with the line on which it begins."""
    text = "\n".join(line for _, line in read_lines(path))
    if not text.strip():
        return
    _parsed(text, kind, path, 1)  # the whole is well-formed, or says where it is not
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    position = _next_value(text, _next_value(text, 0) + 1)
    while text[position] not in "]}":
        line, counted = line + text.count("\n", counted, position), position
        value, position = decoder.raw_decode(text, position)
        position = _next_value(text, position)
        yield line, value


def _next_value(text: str, position: int) -> int:
    """The position of the next key or value, behind white space, commas and colons."""
    found = _BETWEEN.match(text, position)
    return found.end() if found else position


def _parsed(text: str, kind: type, path: Path, first_line: int) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON: {error.msg} at column {error.colno}", path, first_line + error.lineno - 1
        ) from error
    return _checked(value, kind, path, first_line)


def _checked(value: Any, kind: type, path: Path, line: int) -> Any:
    if not isinstance(value, kind):
        expected = "object" if kind is dict else "array"
        raise DataError(f"expected a JSON {expected}, found {type(value).__name__}", path, line)
    return value


def _read_record(
    record: dict[str, Any], source: Source, reader: SpanReader, asked: tuple[str, ...], plain_tags: bool
) -> Example:
    if label_studio.is_task(record):
        return reader.example(*label_studio.read_task(record, source, reader.findings), source)
    if label_studio.is_min_record(record):
        return reader.example(*label_studio.read_min_record(record, source, reader.findings), source)
    token_key = next((key for key in _TOKEN_KEYS if key in record), None)
    if token_key:
        return _tagged_example(record, token_key, source, asked, plain_tags)
    if not isinstance(record.get("text"), str):
        found = ", ".join(record) or "none"
        raise DataError(f"expected a key tokens or text, found {found}", source.path, source.line)
    span_key = next((key for key in _SPAN_KEYS if key in record), None)
    doccano.count_unused(record, reader.findings)
    spans = _character_spans(record[span_key], record["text"], source) if span_key else None
    return reader.example(record["text"], spans, source)


def _tagged_example(
    record: dict[str, Any], token_key: str, source: Source, asked: tuple[str, ...], plain_tags: bool
) -> Example:
    words, path, line = record[token_key], source.path, source.line
    tag_key = next((key for key in asked if record.get(key) is not None), None)
    tags = record[tag_key] if tag_key else None
    for key, values in ((token_key, words), (tag_key, tags)):
        if key and not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
            numbers = isinstance(values, list) and values and all(isinstance(value, int) for value in values)
            advice = "; write their names instead of the numbers of classes" if numbers else ""
            raise DataError(f"{key} is not a list of strings{advice}", path, line)
    if tags is not None and len(tags) != len(words):
        raise DataError(f"{len(words)} {token_key} but {len(tags)} {tag_key} in {source.guid}", path, line)
    labels = None if tags is None else [checked_tag(tag, path, line, plain_tags) for tag in tags]
    example = Example(source.guid, words, labels, line=line, confidences=_confidences(record, labels))
    text = record.get("text")
    if isinstance(text, str) and (offsets := find_words(words, text)) is not None:
        example.text, example.offsets = text, offsets
    return example


def _confidences(record: dict[str, Any], labels: list[str] | None) -> list[float] | None:
    """Those of the entities of a predictions file."""
    found = record.get("entities")
    if labels is None or not isinstance(found, list) or len(found) != len(tags_to_entities(labels)):
        return None
    if not all(isinstance(entity, dict) and "confidence" in entity for entity in found):
        return None
    return [float(entity["confidence"]) for entity in found]


def _character_spans(annotation: Any, text: str, source: Source) -> list[Span]:
    """The spans of CLUENER's nested dictionary, or of a list of spans."""
    try:
        if isinstance(annotation, dict):
            return _cluener_spans(annotation, text, source)
        return [_span(value) for value in annotation]
    except DataError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        expected = (
            '{"start", "end", "type"}, {"start_offset", "end_offset", "label"}, [start, end, type], or '
            "CLUENER's {type: {surface: [[start, last]]}}"
        )
        raise DataError(
            f"cannot read the spans {annotation!r}; expected {expected}", source.path, source.line
        ) from error


def _cluener_spans(annotation: dict[str, Any], text: str, source: Source) -> list[Span]:
    spans = []
    for entity_type, surfaces in annotation.items():
        for surface, places in surfaces.items():
            for start, last in places:
                if text[start : last + 1] != surface:
                    message = f"{surface!r} is not at [{start}, {last}], which reads {text[start : last + 1]!r}"
                    raise DataError(message, source.path, source.line)
                spans.append(Span(entity_type, start, last + 1))
    return spans


def _span(value: Any) -> Span:
    if not isinstance(value, dict):
        return Span(str(value[2]), place_of(value[0]), place_of(value[1]))
    start, end = ("start_offset", "end_offset") if "start_offset" in value else ("start", "end")
    entity_type = value.get("type") or value["label"]
    if not isinstance(entity_type, str):
        raise TypeError(f"the type {entity_type!r} is no name")
    return Span(entity_type, place_of(value[start]), place_of(value[end]))
