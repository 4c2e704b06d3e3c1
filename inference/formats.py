"""Writes predictions to a file, the standard output, or a folder for brat."""

import gzip
import os
import sys
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from html import escape
from pathlib import Path
from typing import Any, TextIO, cast

from common.durable import atomic_write
from common.entities import Entity
from common.tag_schemes import MARKUPS, entities_to_tags
from inference.predictor import FoundEntity
from processors.examples import Example
from processors.formats.brat import write_brat
from processors.formats.writers import json_line
from processors.text.text_files import RawText
from processors.text.word_cutting import WordCutter

FORMATS = ("jsonl", "conll", "tsv", "html", "brat")
Predictions = Iterable[tuple[RawText, list[FoundEntity]]]

_PAGE_START = Path(__file__).with_name("page_start.html").read_text("utf-8")
_PAGE_END = "</body>\n</html>\n"
_TABLE_HEAD = "id\ttype\tstart\tend\tconfidence\tsurface\n"
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
# Control characters are shown as their Unicode pictures.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {127: 0x2421}


def check_output(format: str, output: str, sources: Sequence[str] = ()) -> None:
    """Check that predictions for the files ``sources`` can be written to ``output``; ValueError if not."""
    path = Path(output)
    if format == "brat":
        if not output or path.exists():
            raise ValueError(f"brat needs a new folder: --output {output or 'is missing'}")
    elif output and path.is_dir():
        raise ValueError(f"--output {output} is a folder; name a file in it")
    elif path.is_file() and any(Path(source).is_file() and path.samefile(source) for source in sources):
        raise ValueError(f"--output {output} is also an input; name another file")


def write_predictions(predictions: Predictions, format: str, output: str, cutter: WordCutter) -> None:
    """Write texts with their entities, one by one.

    Args:
        format: one of ``FORMATS``.
        output: a file, gzipped if its name ends in ``.gz``; empty for the standard output.
        cutter: cuts texts into the words of ``conll``.

    Raises:
        ValueError: brat without a folder, or with an existing one.
    """
    check_output(format, output)
    if format == "brat":
        write_brat((annotated(item, entities) for item, entities in predictions), Path(output))
        return
    with _opened(output) as file:
        file.write({"tsv": _TABLE_HEAD, "html": _PAGE_START}.get(format, ""))
        for item, entities in predictions:
            if format == "jsonl":
                file.write(json_record(item, entities))
            elif format == "conll":
                file.write(columns(item, entities, cutter))
            elif format == "tsv":
                file.write(table_rows(item, entities))
            else:
                file.write(article(str(item.id), item.text, entities))
        file.write(_PAGE_END if format == "html" else "")


@contextmanager
def _opened(output: str) -> Iterator[TextIO]:
    """A text file that appears under its name when it is complete; pipes and devices are written to directly."""
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": ""}  # lone surrogates become ?
    if not output:
        sys.stdout.reconfigure(**options)  # type: ignore[union-attr]
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as head, has stopped
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
        return
    path = Path(output)
    with (
        nullcontext(path) if path.exists() and not path.is_file() else atomic_write(path) as fresh,
        gzip.open(fresh, "wt", **options) if output.endswith(".gz") else fresh.open("w", **options) as file,
    ):
        yield cast(TextIO, file)


def json_record(item: RawText, entities: Sequence[FoundEntity]) -> str:
    """``{"id", "text", "entities": [{"type", "start", "end", "surface", "confidence"}]}``."""
    return json_line({"id": item.id, "text": item.text, "entities": json_entities(entities)}) + "\n"


def json_entities(entities: Sequence[FoundEntity]) -> list[dict[str, Any]]:
    """``{"type", "start", "end", "surface", "confidence"}`` of each entity."""
    return [entity._asdict() | {"confidence": round(entity.confidence, 6)} for entity in entities]


def columns(item: RawText, entities: Sequence[FoundEntity], cutter: WordCutter) -> str:
    """One word and its IOB2 tag per line, then a blank line; words that are white space are left out."""
    spans = [span for span in cutter.spans(item.text) if not item.text[slice(*span)].isspace()]
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    in_words = (Entity(one.type, bisect_left(starts, one.start), bisect_right(ends, one.end) - 1) for one in entities)
    tags = entities_to_tags([entity for entity in in_words if entity.words > 0], len(spans), MARKUPS["bio"])
    return "".join(f"{item.text[start:end]} {tag}\n" for (start, end), tag in zip(spans, tags, strict=True)) + "\n"


def table_rows(item: RawText, entities: Sequence[FoundEntity]) -> str:
    """One entity per line; tabs, line breaks and backslashes are escaped, such as ``\\t``."""
    rows = (
        (str(item.id), entity.type, entity.start, entity.end, f"{entity.confidence:.6f}", entity.surface)
        for entity in entities
    )
    return "".join("\t".join(str(field).translate(_ESCAPED) for field in row) + "\n" for row in rows)


def article(name: str, text: str, entities: Sequence[FoundEntity]) -> str:
    """HTML of a text with its entities marked."""
    parts, position = [], 0
    for entity in entities:
        hue, label = zlib.crc32(entity.type.encode()) % 360, _shown(entity.type)
        parts += [
            _shown(text[position : entity.start]),
            f'<mark style="--hue:{hue}" title="{label} {entity.confidence:.1%}">',
            f"<bdi>{_shown(entity.surface)}</bdi><small>{label}</small></mark>",
        ]
        position = entity.end
    parts.append(_shown(text[position:]))
    return f'<article><h2>{_shown(name)}</h2><p dir="auto">{"".join(parts)}</p></article>\n'


def _shown(text: str) -> str:
    return escape(text.translate(_CONTROLS))


def annotated(item: RawText, entities: Sequence[FoundEntity]) -> Example:
    """A text whose words are its entities."""
    words = [entity.surface for entity in entities]
    found = [Entity(entity.type, number, number) for number, entity in enumerate(entities)]
    offsets = [(entity.start, entity.end) for entity in entities]
    return Example(str(item.id), words, found, item.text, offsets)
