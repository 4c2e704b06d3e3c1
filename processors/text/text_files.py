"""Unlabelled texts from files and streams: one text per line or file, or JSON lines; gzip by file name."""

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
    """A text and its id: the ``id`` in JSON lines, else file and line."""

    id: Any
    text: str


def read_texts(sources: Sequence[str], whole_files: bool = False, replace: bool = False) -> Iterator[RawText]:
    """Read texts one by one, with only one in memory.

    ``.jsonl`` files have one object with a ``text`` per line, other files one text per line. Line ends and a byte order
    mark are removed; otherwise texts are unchanged. ``.gz`` files are unpacked.

    Args:
        sources: files, or ``-`` for standard input.
        whole_files: read each file that is not JSON lines as one text.
        replace: replace bytes that are not UTF-8 by U+FFFD, with a warning, instead of raising an error.

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
            logger.warning("%s: %d texts contain U+FFFD, in place of bytes that are not UTF-8", name, replaced)
        for kind, count in findings.counts.items():
            logger.warning("%s: %d %s", name, count, kind)


def without_surrogates(items: Iterable[RawText], name: str) -> Iterator[RawText]:
    """Replace lone surrogates, which UTF-8 cannot encode, by U+FFFD and log how many ``name`` had."""
    replaced = 0
    for item in items:
        text, count = without_lone_surrogates(item.text)
        replaced += count
        yield RawText(item.id, text)
    if replaced:
        logger.warning("%s: %d lone surrogates, such as \\ud83d, were replaced by U+FFFD", name, replaced)


def check_sources(sources: Sequence[str]) -> None:
    """Raise a DataError for the first source that is not a file."""
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
    """Yield lines and convert read errors to DataError."""
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
