"""Unlabelled texts from files and streams: a text a line or a file, or JSON lines; gzip by name."""

import gzip
import json
import logging
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from processors.examples import DataError, Findings, without_lone_surrogates
from processors.formats.text_lines import decoded_lines

logger = logging.getLogger(__name__)
STDIN = "-"


@dataclass(frozen=True)
class RawText:
    """A text and what names it: its ``id`` in JSON lines, else file and line."""

    id: Any
    text: str


def read_texts(sources: Sequence[str], whole_files: bool = False, replace: bool = False) -> Iterator[RawText]:
    """Reads texts one after the other; no more than one is held.

    A file whose name ends in ``.jsonl`` holds an object with a ``text`` a line, any other a text a line, without its
    line end and a byte order mark, otherwise untouched. Names that end in ``.gz`` are unpacked.

    Args:
        sources: files, or ``-`` for the standard input.
        whole_files: take each file that is not JSON lines as one text.
        replace: put U+FFFD where bytes are not UTF-8, with a warning, instead of an error.

    Raises:
        DataError: a file is missing or broken, with the line.
    """
    for source in sources:
        name = "stdin" if source == STDIN else source
        replaced = 0
        findings = Findings()
        with _opened(source) as file:
            items = _texts_of(file, source, name, whole_files, replace, findings)
            for item in without_surrogates(items, name):
                replaced += replace and "\ufffd" in item.text
                yield item
        if replaced:
            logger.warning("%s: %d texts hold U+FFFD, in place of bytes that are not UTF-8", name, replaced)
        for kind, count in findings.counts.items():
            logger.warning("%s: %d %s", name, count, kind)


def without_surrogates(items: Iterable[RawText], name: str) -> Iterator[RawText]:
    """Puts U+FFFD where a text has a lone surrogate, which UTF-8 cannot express, and logs how many ``name`` had."""
    replaced = 0
    for item in items:
        text, count = without_lone_surrogates(item.text)
        replaced += count
        yield RawText(item.id, text)
    if replaced:
        logger.warning("%s: %d lone surrogates, such as \\ud83d, were replaced by U+FFFD", name, replaced)


def check_sources(sources: Sequence[str]) -> None:
    """Raises a DataError for the first source that is no file."""
    for source in sources:
        if Path(source).is_dir():
            raise DataError("is a folder; name the files in it", source)
        if source != STDIN and not Path(source).exists():
            raise DataError("there is no such file", source)


def _opened(source: str) -> Any:
    check_sources([source])
    if source == STDIN:
        return nullcontext(sys.stdin.buffer)
    return gzip.open(source, "rb") if source.endswith(".gz") else Path(source).open("rb")


def _texts_of(
    file: IO[bytes], source: str, name: str, whole_files: bool, replace: bool, findings: Findings
) -> Iterator[RawText]:
    lines = decoded_lines(_read_lines(file, name), name, replace, "or give --replace_bad_utf8", findings)
    if source.removesuffix(".gz").endswith(".jsonl"):
        yield from (_parsed(line, name, number) for number, line in lines if line.strip())
    elif whole_files:
        yield RawText(name, "".join(line for _, line in lines))
    else:
        yield from (RawText(f"{name}:{number}", re.sub(r"\r?\n\Z", "", line)) for number, line in lines)


def _read_lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines, with the errors of reading made ours."""
    number = 0
    try:
        for line in file:
            number += 1
            yield line
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", name, number + 1) from error


def _parsed(line: str, name: str, number: int) -> RawText:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", name, number) from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise DataError('expected an object with a string under "text"', name, number)
    return RawText(record.get("id", f"{name}:{number}"), record["text"])
