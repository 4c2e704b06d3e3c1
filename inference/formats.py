"""Where predictions go: a file, packed by its name, the standard output, or a folder for brat."""

import gzip
import os
import sys
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TextIO, cast

from common.entities import Entity
from common.tag_schemes import MARKUPS, entities_to_tags
from inference.predictor import FoundEntity
from processors.examples import Example
from processors.formats.brat import write_brat
from processors.formats.writers import json_line
from processors.text.text_files import RawText
from processors.text.word_cutting import WordCutter

PAGE_START = """<!doctype html>
<html lang="und">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Entities</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.9 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
article { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); padding: .6rem 0; }
h2 { font-size: .75rem; font-weight: normal; opacity: .65; margin: 0; }
p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
mark { color: inherit; border-radius: .25rem; padding: .1rem .25rem;
       background: light-dark(hsl(var(--hue) 80% 85%), hsl(var(--hue) 45% 28%)); }
mark small { font-size: .65em; font-weight: 600; margin-inline-start: .4em; opacity: .75; }
</style>
</head>
<body>
"""
PAGE_END = "</body>\n</html>\n"
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {127: 0x2421}  # as pictures


def article(name: str, text: str, entities: Sequence[FoundEntity]) -> str:
    """A text with its entities marked."""
    parts, position = [], 0
    for entity in entities:
        parts += [_shown(text[position : entity.start]), _mark(entity)]
        position = entity.end
    parts.append(_shown(text[position:]))
    return f'<article><h2>{_shown(name)}</h2><p dir="auto">{"".join(parts)}</p></article>\n'


def _mark(entity: FoundEntity) -> str:
    hue = zlib.crc32(entity.type.encode()) % 360
    title = f"{_shown(entity.type)} {entity.confidence:.1%}"
    label = f"<small>{_shown(entity.type)}</small>"
    return f'<mark style="--hue:{hue}" title="{title}"><bdi>{_shown(entity.surface)}</bdi>{label}</mark>'


def _shown(text: str) -> str:
    return escape(text.translate(_CONTROLS))


Record = Callable[[RawText, Sequence[FoundEntity]], str]
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True)
class TextFormat:
    """How predictions are written.

    Args:
        record: a text and its entities as they stand in the file.
        head, tail: what stands around the records.
    """

    record: Record
    head: str = ""
    tail: str = ""


def text_format(name: str, cutter: WordCutter) -> TextFormat:
    """The format of this name.

    Args:
        name: one of ``TEXT_FORMATS``.
        cutter: cuts texts into the words that are the rows of ``conll``.
    """
    formats = {
        "jsonl": TextFormat(json_record),
        "conll": TextFormat(lambda item, entities: columns(item, entities, cutter)),
        "tsv": TextFormat(table_rows, head="id\ttype\tstart\tend\tconfidence\tsurface\n"),
        "html": TextFormat(lambda item, entities: article(str(item.id), item.text, entities), PAGE_START, PAGE_END),
    }
    return formats[name]


TEXT_FORMATS = ("jsonl", "conll", "tsv", "html")


def json_record(item: RawText, entities: Sequence[FoundEntity]) -> str:
    """``{"id", "text", "entities": [{"type", "start", "end", "surface", "confidence"}]}``."""
    return json_line({"id": item.id, "text": item.text, "entities": json_entities(entities)}) + "\n"


def json_entities(entities: Sequence[FoundEntity]) -> list[dict[str, Any]]:
    """``{"type", "start", "end", "surface", "confidence"}`` each."""
    return [entity._asdict() | {"confidence": round(entity.confidence, 6)} for entity in entities]


def columns(item: RawText, entities: Sequence[FoundEntity], cutter: WordCutter) -> str:
    """A word and its tag in IOB2 a line, and a blank line; white space that is labelled as a word is left out."""
    spans = [span for span in cutter.spans(item.text) if not item.text[slice(*span)].isspace()]
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    in_words = (Entity(one.type, bisect_left(starts, one.start), bisect_right(ends, one.end) - 1) for one in entities)
    tags = entities_to_tags([entity for entity in in_words if entity.words > 0], len(spans), MARKUPS["bio"])
    return "".join(f"{item.text[start:end]} {tag}\n" for (start, end), tag in zip(spans, tags, strict=True)) + "\n"


def table_rows(item: RawText, entities: Sequence[FoundEntity]) -> str:
    """An entity a line; tabs, line breaks and backslashes are escaped as in ``\\t``."""
    rows = (
        (str(item.id), entity.type, entity.start, entity.end, f"{entity.confidence:.6f}", entity.surface)
        for entity in entities
    )
    return "".join("\t".join(str(field).translate(_ESCAPED) for field in row) + "\n" for row in rows)


FORMATS = (*TEXT_FORMATS, "brat")
Predictions = Iterable[tuple[RawText, list[FoundEntity]]]


def write_predictions(predictions: Predictions, format: str, output: str, cutter: WordCutter) -> None:
    """Writes texts and their entities as they come.

    Args:
        format: one of ``FORMATS``.
        output: a file, gzipped where it ends in ``.gz``; empty for the standard output.
        cutter: cuts texts into the words that are the rows of ``conll``.

    Raises:
        ValueError: brat without a folder, or in one that is there already.
    """
    check_output(format, output)
    if format == "brat":
        write_brat((annotated(item, entities) for item, entities in predictions), Path(output))
        return
    chosen = text_format(format, cutter)
    with _opened(output) as file:
        file.write(chosen.head)
        for item, entities in predictions:
            file.write(chosen.record(item, entities))
        file.write(chosen.tail)


def check_output(format: str, output: str, sources: Sequence[str] = ()) -> None:
    """Raises a ValueError where the predictions for the files ``sources`` cannot be written to ``output``."""
    path = Path(output)
    if format == "brat":
        if not output or path.exists():
            raise ValueError(f"brat needs a new folder: --output {output or 'is missing'}")
    elif output and path.is_dir():
        raise ValueError(f"--output {output} is a folder; name a file in it")
    elif path.is_file() and any(Path(source).is_file() and path.samefile(source) for source in sources):
        raise ValueError(f"--output {output} is read from, too; name another file")


def annotated(item: RawText, entities: Sequence[FoundEntity]) -> Example:
    """A text whose words are its entities."""
    words = [entity.surface for entity in entities]
    found = [Entity(entity.type, number, number) for number, entity in enumerate(entities)]
    offsets = [(entity.start, entity.end) for entity in entities]
    return Example(str(item.id), words, found, item.text, offsets)


@contextmanager
def _opened(output: str) -> Iterator[TextIO]:
    """A text file that writes half a surrogate pair as ``?`` and leaves line ends as they are.

    It has its name from the end on: until then ``.part`` follows, and what had the name stays as it was. Pipes and
    devices are written to directly.
    """
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": ""}
    if not output:
        sys.stdout.reconfigure(**options)  # type: ignore[union-attr]
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:  # who reads it, such as head, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        return
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path if path.exists() and not path.is_file() else path.with_name(f"{path.name}.part")
    with gzip.open(part, "wt", **options) if output.endswith(".gz") else part.open("w", **options) as file:
        yield cast(TextIO, file)
    if part != path:
        part.replace(path)
