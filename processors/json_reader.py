"""JSON files: CLUENER, tokens with tags, text with character spans, and the object form ``{"0": {"sents", ...}}``."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processors.column_reader import checked_tag, read_lines
from processors.examples import DataError, Example, is_wide
from processors.tag_schemes import SCHEMES, Entity, entities_to_tags

_TOKEN_KEYS = ("tokens", "words")
_TAG_KEYS = ("tags", "ner_tags", "labels")
_SPAN_KEYS = ("entities", "spans", "label", "labels")
_BETWEEN = re.compile(r"[\s,:]*")
_WORD = re.compile(r"\w+|[^\w\s]")


def read_json(path: Path, split: str, word_unit: str = "auto", labelled: bool = True) -> Iterator[Example]:
    """Reads JSON lines or one JSON object of sentences, whichever the file holds.

    Args:
        path: the file.
        split: names the examples that have no ``id``.
        word_unit: how text is cut into words: ``char``, ``word``, or ``auto``: characters where it is Chinese.
        labelled: whether an example without labels is an error.

    Raises:
        DataError: broken JSON, missing keys, or spans that do not fit the text.
    """
    records = _object_of_sentences(path) if _is_one_object(path) else _json_lines(path)
    for index, (line, record) in enumerate(records):
        guid = str(record.get("id", record.get("guid", f"{split}-{index}")))
        example = _read_record(record, guid, path, line, word_unit)
        if labelled and example.labels is None:
            keys = ", ".join(record)
            raise DataError(f"no labels (keys: {keys}); expected tokens and tags, or text and spans", path, line)
        yield example


def _is_one_object(path: Path) -> bool:
    first = next((line for _, line in read_lines(path) if line.strip()), "")
    try:
        value = json.loads(first)
    except json.JSONDecodeError:
        return True
    return isinstance(value, dict) and all(isinstance(entry, dict) and "sents" in entry for entry in value.values())


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        if line.strip():
            yield number, _parsed_object(line, path, number)


def _object_of_sentences(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = "\n".join(line for _, line in read_lines(path))
    for line, key, entry in _entries_with_lines(text, path):
        strings = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
        if not strings or "sents" not in entry:
            message = f'entry {key!r} is not of the form {{"sents": "w w w", "ner_labels": "O B-LOC O"}}'
            raise DataError(message, path, line)
        record = {"id": key, "tokens": entry["sents"].split()}
        if "ner_labels" in entry:
            record["tags"] = entry["ner_labels"].split()
        yield line, record


def _entries_with_lines(text: str, path: Path) -> Iterator[tuple[int, str, Any]]:
    """The entries of one JSON object, each with the line on which its key stands."""
    if text.strip():
        _parsed_object(text, path, 1)  # the whole is well-formed, or says where it is not
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    position = _next_value(text, text.find("{") + 1)
    while position < len(text) and text[position] != "}":
        line, counted = line + text.count("\n", counted, position), position
        key, position = decoder.raw_decode(text, position)
        entry, position = decoder.raw_decode(text, _next_value(text, position))
        position = _next_value(text, position)
        yield line, key, entry


def _next_value(text: str, position: int) -> int:
    """The position of the next key or value, behind white space, commas and colons."""
    found = _BETWEEN.match(text, position)
    return found.end() if found else position


def _parsed_object(text: str, path: Path, first_line: int) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON: {error.msg} at column {error.colno}", path, first_line + error.lineno - 1
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, found {type(value).__name__}", path, first_line)
    return value


def _read_record(record: dict[str, Any], guid: str, path: Path, line: int, word_unit: str) -> Example:
    token_key = next((key for key in _TOKEN_KEYS if key in record), None)
    if token_key:
        return _tagged_example(record, token_key, guid, path, line)
    if not isinstance(record.get("text"), str):
        raise DataError(f"expected a key tokens or text, found {', '.join(record) or 'none'}", path, line)
    text = record["text"]
    words, offsets = split_text(text, word_unit)
    span_key = next((key for key in _SPAN_KEYS if key in record), None)
    if span_key is None:
        return Example(guid, words, None, text, offsets, line)
    spans = _character_spans(record[span_key], text, path, line)
    entities, dropped = _without_nested(_word_spans(spans, text, offsets, path, line))
    labels = entities_to_tags(entities, len(words), SCHEMES["IOB2"])
    return Example(guid, words, labels, text, offsets, line, dropped_entities=dropped)


def _tagged_example(record: dict[str, Any], token_key: str, guid: str, path: Path, line: int) -> Example:
    words = record[token_key]
    tag_key = next((key for key in _TAG_KEYS if key in record), None)
    tags = record[tag_key] if tag_key else None
    for key, values in ((token_key, words), (tag_key, tags)):
        if key and not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
            raise DataError(f"{key} is not a list of strings", path, line)
    if tags is not None and len(tags) != len(words):
        raise DataError(f"{len(words)} {token_key} but {len(tags)} {tag_key} in {guid}", path, line)
    return Example(guid, words, tags and [checked_tag(tag, path, line) for tag in tags], line=line)


def split_text(text: str, word_unit: str = "auto") -> tuple[list[str], list[tuple[int, int]]]:
    """Cuts raw text into words and their character offsets.

    By characters (every one, spaces too, so that positions in the text are positions in the sequence), or by words:
    runs of letters and digits, and single signs.
    """
    if word_unit == "char" or (word_unit == "auto" and any(map(is_wide, text))):
        return list(text), [(i, i + 1) for i in range(len(text))]
    offsets = [match.span() for match in _WORD.finditer(text)]
    return [text[start:end] for start, end in offsets], offsets


def _character_spans(annotation: Any, text: str, path: Path, line: int) -> list[tuple[str, int, int]]:
    """``(type, start, end)`` with an exclusive end, from CLUENER's nested dictionary or from a list of spans."""
    spans: list[tuple[str, int, int]] = []
    try:
        if isinstance(annotation, dict):
            for entity_type, surfaces in annotation.items():
                for surface, places in surfaces.items():
                    for start, last in places:
                        if text[start : last + 1] != surface:
                            message = f"{surface!r} is not at [{start}, {last}], which reads {text[start : last + 1]!r}"
                            raise DataError(message, path, line)
                        spans.append((entity_type, start, last + 1))
        else:
            for span in annotation:
                if isinstance(span, dict):
                    spans.append((span.get("type") or span["label"], int(span["start"]), int(span["end"])))
                else:
                    spans.append((str(span[2]), int(span[0]), int(span[1])))
    except DataError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        expected = '{"start", "end", "type"}, [start, end, type], or CLUENER\'s {type: {surface: [[start, last]]}}'
        raise DataError(f"cannot read the spans {annotation!r}; expected {expected}", path, line) from error
    for entity_type, start, end in spans:
        if not 0 <= start < end <= len(text):
            raise DataError(f"span {entity_type} [{start}, {end}) lies outside the {len(text)} characters", path, line)
    return spans


def _word_spans(
    spans: list[tuple[str, int, int]], text: str, offsets: list[tuple[int, int]], path: Path, line: int
) -> list[Entity]:
    first_word = {start: index for index, (start, _) in enumerate(offsets)}
    last_word = {end: index for index, (_, end) in enumerate(offsets)}
    entities = []
    for entity_type, start, end in spans:
        if start not in first_word or end not in last_word:
            message = f"{entity_type} {text[start:end]!r} [{start}, {end}) does not begin and end at word borders"
            raise DataError(f"{message}; correct it, or label characters with --word_unit char", path, line)
        entities.append(Entity(entity_type, first_word[start], last_word[end] + 1))
    return entities


def _without_nested(entities: list[Entity]) -> tuple[list[Entity], int]:
    """Keeps the outermost of overlapping entities, as flat corpora do, and counts the others."""
    kept: list[Entity] = []
    for entity in sorted(set(entities), key=lambda entity: (entity.start - entity.end, entity.start, entity.type)):
        if all(entity.end <= other.start or other.end <= entity.start for other in kept):
            kept.append(entity)
    return kept, len(set(entities)) - len(kept)
