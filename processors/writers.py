"""Examples written in the formats that are read here: columns, JSON lines, and those of annotation tools."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from processors import doccano, label_studio
from processors.brat import write_brat
from processors.column_layout import is_document_mark
from processors.examples import DataError, Example, Findings
from processors.submissions import json_line

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
    """
    findings = Findings()
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            if not example.words:
                findings.add("texts without a word, left out")
                continue
            words = [_as_column(word, example, findings) for word in example.words]
            if words[0].startswith(_BYTE_ORDER_MARK) and file.tell() == 0:
                file.write(_BYTE_ORDER_MARK)  # readers take one off
            if example.labels is None:
                tags = ["\t" if " " in word else "" for word in words]
            else:
                tags = [f"\t{tag}" for tag in example.labels]
            file.writelines(f"{word}{tag}\n" for word, tag in zip(words, tags, strict=True))
            file.write("\n")
    return findings


def _as_column(word: str, example: Example, findings: Findings) -> str:
    if is_document_mark([word]) or (example.labels is None and not word.strip()):
        raise DataError(f"{example.guid}: the word {word!r} has another meaning in columns; choose another format")
    if not _BREAKS.search(word):
        return word
    findings.add("words with a line break or a tab, written as a space")
    return _BREAKS.sub(" ", word)


def _write_records(record_of: Callable[[Example], dict[str, Any]], examples: Iterable[Example], path: Path) -> Findings:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{json_line(record_of(example))}\n" for example in examples)
    return Findings()


def _token_record(example: Example) -> dict[str, Any]:
    record = {"id": example.guid, "text": example.text, "tokens": example.words}
    return record if example.labels is None else {**record, "tags": example.labels}


def _write_tasks(examples: Iterable[Example], path: Path) -> Findings:
    """An array with a task a line."""
    tasks = (json_line(label_studio.task_of(example)) for example in examples)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(chain(["["], _separated(tasks), ["\n]\n"]))
    return Findings()


def _separated(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{',' if number else ''}\n{line}"


FORMATS = {
    "doccano": Format(".jsonl", lambda examples, path: _write_records(doccano.record_of, examples, path)),
    "doccano_utf16": Format(
        ".jsonl", lambda examples, path: _write_records(lambda one: doccano.record_of(one, "utf16"), examples, path)
    ),
    "label_studio": Format(".json", _write_tasks),
    "brat": Format("", write_brat),
    "conll": Format(".txt", _write_columns),
    "jsonl": Format(".jsonl", lambda examples, path: _write_records(_token_record, examples, path)),
}
