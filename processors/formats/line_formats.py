"""Detection of the format of a file, and the formats with one sentence per line: CMeEE (first version) and MSRA."""

import re
from collections.abc import Iterator
from pathlib import Path

from processors.examples import DataError, Example
from processors.formats.text_lines import read_lines
from processors.spans import Reading, Source, Span

_JSON_SUFFIXES = (".json", ".jsonl", ".jsonlines", ".ndjson")
_JSON = re.compile(r'\s*(\{\s*("|\}|$)|\[\s*(\{|\[\s*"|$)|\["[^"]+",\s*\{)')
_CMEEE = re.compile(r"[^|]+(\|\|\|\s*\d+\s+\d+\s+[^\s|]+\s*)+(\|\|\|)?\s*")
_CMEEE_ENTITY = re.compile(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*")
_MSRA = re.compile(r"\s*(\S+/(nr|ns|nt|o)\s+)*\S+/(nr|ns|nt|o)\s*")
_BINARY = {
    b"\x1f\x8b": "is packed with gzip; unpack it",
    b"PK\x03\x04": "is a zip archive, as doccano exports; unpack it",
    b"PAR1": "is a Parquet file; name it, or its folder, with --dataset_name",
}
_LINES_LOOKED_AT = 20
START = 2**16  # bytes by which a format is known


def detect_format(path: Path, start: bytes | None = None) -> str:
    """One of ``brat`` (a folder), ``json``, ``cmeee``, ``msra`` and ``columns``.

    Args:
        start: the first `START` bytes of the file, if they are known.

    Raises:
        DataError: the file is packed, binary, or CSV.
    """
    if path.is_dir():
        return "brat"
    if start is None:
        with path.open("rb") as file:
            start = file.read(START)
    for magic, found in _BINARY.items():
        if start.startswith(magic):
            raise DataError(found, path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        advice = "export JSON or JSONL instead, or name it with --dataset_name if its columns are tokens and tags"
        raise DataError(f"CSV is not read as a split; {advice}", path)
    text = start.decode("utf-8", "replace").removeprefix("\ufeff")  # readers refuse what is not UTF-8
    whole = text.split("\n") if len(start) < START else text.split("\n")[:-1] or [text]
    lines = [line.rstrip("\r") for line in whole if line.strip()][:_LINES_LOOKED_AT]
    if suffix in _JSON_SUFFIXES or _JSON.match("\n".join(lines[:3])):
        return "json"
    if any(map(_CMEEE.fullmatch, lines)):
        return "cmeee"
    return "msra" if lines and all(map(_MSRA.fullmatch, lines)) else "columns"


def read_cmeee(path: Path, reading: Reading) -> Iterator[Example]:
    """Read lines ``text|||16    18    dis|||...``, with inclusive character positions."""

    def parsed(number: int, line: str) -> Iterator[Example]:
        source = Source(path, number, f"{reading.split}-{number}")
        text, *fields = line.split("|||")
        spans = []
        for field in filter(str.strip, fields):
            found = _CMEEE_ENTITY.fullmatch(field)
            if not found:
                raise source.error(f"cannot read the entity {field!r}; expected START LAST TYPE between |||")
            spans.append(Span(found[3], int(found[1]), int(found[2]) + 1))
        yield reading.example(text, spans if fields or reading.labelled else None, source)

    return reading.examples_of(_lines_with_text(path), parsed)


def read_msra(path: Path, reading: Reading) -> Iterator[Example]:
    """Read lines ``word/nt word/o``; words become characters, and those with a tag other than ``o`` entities."""

    def parsed(number: int, line: str) -> Iterator[Example]:
        source = Source(path, number, f"{reading.split}-{number}")
        text, spans = "", []
        for item in line.split():
            word, _, tag = item.rpartition("/")
            if not word or tag not in ("nr", "ns", "nt", "o"):
                raise source.error(f"cannot read {item!r}; expected a word and one of /nr, /ns, /nt, /o")
            if tag != "o":
                spans.append(Span(tag, len(text), len(text) + len(word)))
            text += word
        yield reading.example(text, spans, source, [(i, i + 1) for i in range(len(text))])

    return reading.examples_of(_lines_with_text(path), parsed)


def _lines_with_text(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in read_lines(path) if line.strip())
