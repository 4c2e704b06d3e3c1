"""Predictions as text: JSON lines, columns, a table of entities; one record a text."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from processors.submissions import json_line
from processors.tag_schemes import MARKUPS, Entity, entities_to_tags
from processors.text_files import RawText
from processors.word_cutting import WordCutter
from tools.prediction_page import PAGE_END, PAGE_START, article
from tools.predictor import FoundEntity

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
    in_words = [
        Entity(entity.type, bisect_left(starts, entity.start), bisect_right(ends, entity.end)) for entity in entities
    ]
    tags = entities_to_tags([entity for entity in in_words if entity.start < entity.end], len(spans), MARKUPS["bio"])
    return "".join(f"{item.text[start:end]} {tag}\n" for (start, end), tag in zip(spans, tags, strict=True)) + "\n"


def table_rows(item: RawText, entities: Sequence[FoundEntity]) -> str:
    """An entity a line; tabs, line breaks and backslashes are escaped as in ``\\t``."""
    rows = (
        (str(item.id), entity.type, entity.start, entity.end, f"{entity.confidence:.6f}", entity.surface)
        for entity in entities
    )
    return "".join("\t".join(str(field).translate(_ESCAPED) for field in row) + "\n" for row in rows)
