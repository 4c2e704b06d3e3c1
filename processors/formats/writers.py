"""Writing of examples as columns, JSON lines and annotation tool formats, and of benchmark submissions."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from common.durable import atomic_write
from common.entities import Entity, outermost
from common.tag_schemes import MARKUPS, entities_to_tags
from processors.examples import DataError, Example, Findings, without_lone_surrogates
from processors.formats import label_studio
from processors.formats.brat import write_brat
from processors.formats.columns import is_document_mark
from processors.spans import Span, in_utf16

# Version of prediction and document files; in 2, `start` and `end` are characters, `first_word` and `last_word` words.
FORMAT_VERSION = 2
_BREAKS = re.compile("[\t\n]|\r$")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Format:
    """An output format.

    Args:
        suffix: suffix of the file; empty for a folder.
        writer: writes examples to a new path and returns what the format could not express.
    """

    suffix: str
    writer: Callable[[Iterable[Example], Path], Findings]

    def write(self, examples: Iterable[Example], path: Path) -> Findings:
        """Write examples and return what the format could not express.

        Raises:
            DataError: an example is partly annotated, or the format cannot express it.
        """
        return self.writer(map(_annotated_as_a_whole, examples), path)


def _annotated_as_a_whole(example: Example) -> Example:
    if example.unannotated and example.entities is not None:
        ranges = ", ".join(f"{first} to {last}" for first, last in example.unannotated)
        raise DataError(f"{example.guid}: words {ranges} are not annotated, which no format can mark; leave it out")
    return example


def _write_columns(examples: Iterable[Example], path: Path) -> Findings:
    """Write ``word<tab>TAG`` per line in IOB2, only words for texts without annotation, and a blank line per example.

    Without tags, a word with a space is followed by a tab, because the space would separate columns otherwise. Of
    overlapping entities the longest are written.

    Raises:
        DataError: some words or tags have another meaning in columns, or only some texts are annotated; nothing is
            written.
    """
    findings = Findings()
    labelled: dict[bool, str] = {}
    with atomic_write(path) as complete, complete.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            if not example.words:
                findings.add("texts without a word, left out")
                continue
            labelled.setdefault(example.entities is not None, example.guid)
            words = [_as_column(word, example, findings) for word in example.words]
            if words[0].startswith(_BYTE_ORDER_MARK) and file.tell() == 0:
                file.write(_BYTE_ORDER_MARK)  # readers remove one
            if example.entities is None:
                tags = ["\t" if " " in word else "" for word in words]
            else:
                tags = [f"\t{_checked_tag(tag, example, findings)}" for tag in _flat_tags(example)]
                nested = len(example.entities) - len(outermost(example.entities))
                findings.add("entities that overlap longer ones, which columns cannot hold, left out", count=nested)
            file.writelines(f"{word}{tag}\n" for word, tag in zip(words, tags, strict=True))
            file.write("\n")
        if len(labelled) == 2:
            message = f"{labelled[True]} has labels and {labelled[False]} has none; columns need labels for all or none"
            findings.fault(DataError(message))
        findings.raise_faults()
    return findings


def _flat_tags(example: Example) -> list[str]:
    return entities_to_tags(outermost(example.entities or ()), len(example.words), MARKUPS["bio"])


def _as_column(word: str, example: Example, findings: Findings) -> str:
    if is_document_mark([word]) or (example.entities is None and not word.strip()):
        message = f"{example.guid}: the word {word!r} has another meaning in columns; choose another format"
        findings.fault(DataError(message))
    word = findings.mended(word)
    if not _BREAKS.search(word):
        return word
    findings.add("words with a line break or a tab, written as a space")
    return _BREAKS.sub(" ", word)


def _checked_tag(tag: str, example: Example, findings: Findings) -> str:
    if tag != tag.strip() or _BREAKS.search(tag):
        findings.fault(DataError(f"{example.guid}: the tag {tag!r} cannot be written in columns; rename its type"))
    return findings.mended(tag)


def write_records(records: Iterable[Mapping[str, Any]], path: Path) -> Findings:
    """Write JSON lines."""
    findings = Findings()
    with atomic_write(path) as complete, complete.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{_json(record, findings)}\n" for record in records)
    return findings


def _json(record: Mapping[str, Any], findings: Findings) -> str:
    return findings.mended(json.dumps(record, ensure_ascii=False))


def _token_record(example: Example) -> dict[str, Any]:
    """Record of tokens with tags, or with entities if some overlap."""
    record: dict[str, Any] = {"id": example.guid, "text": example.text, "tokens": example.words}
    if example.document:
        record["doc_id"] = example.document
    if example.entities is None:
        return record
    if len(outermost(example.entities)) == len(example.entities):
        return {**record, "tags": _flat_tags(example)}
    text, offsets = example.text or "", example.offsets or []
    return {**record, "entities": [entity_record(entity, text, offsets) for entity in example.entities]}


def entity_record(entity: Entity, text: str, offsets: Any) -> dict[str, Any]:
    """Record with ``type``, ``first_word``, ``last_word``, characters ``start``, ``end`` (exclusive), and ``text``."""
    start, end = int(offsets[entity.first_word][0]), int(offsets[entity.last_word][1])
    return {**entity._asdict(), "start": start, "end": end, "text": text[start:end]}


def doccano_record(example: Example, offset_unit: str = "code_point") -> dict[str, Any]:
    """Record for doccano; a text without annotation has no ``label``."""
    text = example.text or ""
    record: dict[str, Any] = {"id": example.guid, "text": text}
    if example.entities is not None:
        places: Iterable[tuple[int, int]] = map(example.place, example.entities)
        if offset_unit == "utf16":
            places = ((in_utf16(text, start), in_utf16(text, end)) for start, end in places)
        record["label"] = [[*place, entity.type] for place, entity in zip(places, example.entities, strict=True)]
    return record


def write_tasks(tasks: Iterable[Mapping[str, Any]], path: Path) -> Findings:
    """Write a JSON array with one task per line."""
    findings = Findings()
    lines = (_json(task, findings) for task in tasks)
    with atomic_write(path) as complete, complete.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(chain(["["], _separated(lines), ["\n]\n"]))
    return findings


def _separated(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{',' if number else ''}\n{line}"


FORMATS = {
    "doccano": Format(".jsonl", lambda examples, path: write_records(map(doccano_record, examples), path)),
    "doccano_utf16": Format(
        ".jsonl", lambda examples, path: write_records((doccano_record(one, "utf16") for one in examples), path)
    ),
    "label_studio": Format(".json", lambda examples, path: write_tasks(map(label_studio.task_of, examples), path)),
    "brat": Format("", write_brat),
    "conll": Format(".txt", _write_columns),
    "jsonl": Format(".jsonl", lambda examples, path: write_records(map(_token_record, examples), path)),
}


def json_line(record: Mapping[str, Any]) -> str:
    """Format a record as one line of JSON; lone surrogates are replaced."""
    return without_lone_surrogates(json.dumps(record, ensure_ascii=False))[0]


def cluener_line(guid: str, text: str, entities: Sequence[Span]) -> str:
    """Format a line of ``cluener_predict.json``: ``{"id", "label": {type: {surface: [[start, last]]}}}``."""
    label: dict[str, dict[str, list[list[int]]]] = {}
    for entity in entities:
        surface = text[entity.start : entity.end]
        label.setdefault(entity.type, {}).setdefault(surface, []).append([entity.start, entity.end - 1])
    return json_line({"id": int(guid) if guid.isdecimal() else guid, "label": label})


SUBMISSIONS: dict[str, Callable[[str, str, Sequence[Span]], str]] = {"cluener": cluener_line}
