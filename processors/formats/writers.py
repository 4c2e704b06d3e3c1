"""Examples written in the formats that are read here: columns, JSON lines, and those of annotation tools."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from common.durable import atomic_write
from common.tag_schemes import tags_to_entities
from processors.examples import DataError, Example, Findings, without_lone_surrogates
from processors.formats import label_studio
from processors.formats.brat import write_brat
from processors.formats.columns import is_document_mark
from processors.spans import Span, in_utf16

_BREAKS = re.compile("[\t\n]|\r$")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Format:
    """How a split is written.

    Args:
        suffix: of the file; empty for a folder.
        write: writes examples where nothing is yet, and says what the format could not hold.
    """

    suffix: str
    write: Callable[[Iterable[Example], Path], Findings]


def _write_columns(examples: Iterable[Example], path: Path) -> Findings:
    """``word<tab>TAG`` a line, only words where there are no labels, and a blank line after each example.

    Without a label a tab follows a word that holds a space, which would begin a column otherwise.

    Raises:
        DataError: some words or tags have another meaning in columns, or only some texts have labels; then nothing is
            written.
    """
    findings = Findings()
    labelled: dict[bool, str] = {}
    with atomic_write(path) as complete, complete.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            if not example.words:
                findings.add("texts without a word, left out")
                continue
            labelled.setdefault(example.labels is not None, example.guid)
            words = [_as_column(word, example, findings) for word in example.words]
            if words[0].startswith(_BYTE_ORDER_MARK) and file.tell() == 0:
                file.write(_BYTE_ORDER_MARK)  # readers take one off
            if example.labels is None:
                tags = ["\t" if " " in word else "" for word in words]
            else:
                tags = [f"\t{_checked_tag(tag, example, findings)}" for tag in example.labels]
            file.writelines(f"{word}{tag}\n" for word, tag in zip(words, tags, strict=True))
            file.write("\n")
        if len(labelled) == 2:
            message = (
                f"{labelled[True]} has labels and {labelled[False]} has none, which one file of columns cannot hold"
            )
            findings.fault(DataError(message))
        findings.raise_faults()
    return findings


def _as_column(word: str, example: Example, findings: Findings) -> str:
    if is_document_mark([word]) or (example.labels is None and not word.strip()):
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


def _write_records(record_of: Callable[[Example], dict[str, Any]], examples: Iterable[Example], path: Path) -> Findings:
    findings = Findings()
    with atomic_write(path) as complete, complete.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{_json(record_of(example), findings)}\n" for example in examples)
    return findings


def _json(record: dict[str, Any], findings: Findings) -> str:
    return findings.mended(json.dumps(record, ensure_ascii=False))


def _token_record(example: Example) -> dict[str, Any]:
    record = {"id": example.guid, "text": example.text, "tokens": example.words}
    return record if example.labels is None else {**record, "tags": example.labels}


def _doccano_record(example: Example, offset_unit: str = "code_point") -> dict[str, Any]:
    """A line that doccano imports; an unlabelled text has no ``label``."""
    text, offsets = example.text or "", example.offsets or []
    record: dict[str, Any] = {"id": example.guid, "text": text}
    if example.labels is not None:
        places = [(offsets[first][0], offsets[last][1], kind) for kind, first, last in tags_to_entities(example.labels)]
        if offset_unit == "utf16":
            places = [(in_utf16(text, start), in_utf16(text, end), kind) for start, end, kind in places]
        record["label"] = [list(place) for place in places]
    return record


def _write_tasks(examples: Iterable[Example], path: Path) -> Findings:
    """An array with a task a line."""
    findings = Findings()
    tasks = (_json(label_studio.task_of(example), findings) for example in examples)
    with atomic_write(path) as complete, complete.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(chain(["["], _separated(tasks), ["\n]\n"]))
    return findings


def _separated(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{',' if number else ''}\n{line}"


FORMATS = {
    "doccano": Format(".jsonl", lambda examples, path: _write_records(_doccano_record, examples, path)),
    "doccano_utf16": Format(
        ".jsonl", lambda examples, path: _write_records(lambda one: _doccano_record(one, "utf16"), examples, path)
    ),
    "label_studio": Format(".json", _write_tasks),
    "brat": Format("", write_brat),
    "conll": Format(".txt", _write_columns),
    "jsonl": Format(".jsonl", lambda examples, path: _write_records(_token_record, examples, path)),
}


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


SUBMISSIONS: dict[str, Callable[[str, str, Sequence[Span]], str]] = {"cluener": cluener_line}
