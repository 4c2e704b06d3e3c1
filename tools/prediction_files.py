"""Where predictions go: a file, packed by its name, the standard output, or a folder for brat."""

import gzip
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from processors.brat import write_brat
from processors.examples import Example
from processors.text_files import RawText
from tools.prediction_formats import TEXT_FORMATS, text_format
from tools.predictor import FoundEntity

FORMATS = (*TEXT_FORMATS, "brat")
Predictions = Iterable[tuple[RawText, list[FoundEntity]]]


def write_predictions(predictions: Predictions, format: str, output: str, word_unit: str) -> None:
    """Writes texts and their entities as they come.

    Args:
        format: one of ``FORMATS``.
        output: a file, gzipped where it ends in ``.gz``; empty for the standard output.
        word_unit: how the model cuts words, which are the rows of ``conll``.

    Raises:
        ValueError: brat without a folder, or in one that is there already.
    """
    if format == "brat":
        if not output or Path(output).exists():
            raise ValueError(f"brat needs a new folder: --output {output or 'is missing'}")
        write_brat((annotated(item, entities) for item, entities in predictions), Path(output))
        return
    chosen = text_format(format, word_unit)
    with _opened(output) as file:
        file.write(chosen.head)
        for item, entities in predictions:
            file.write(chosen.record(item, entities))
        file.write(chosen.tail)


def annotated(item: RawText, entities: Sequence[FoundEntity]) -> Example:
    """A text whose words are its entities."""
    words, tags = [entity.surface for entity in entities], [f"B-{entity.type}" for entity in entities]
    offsets = [(entity.start, entity.end) for entity in entities]
    return Example(str(item.id), words, tags, item.text, offsets)


def _opened(output: str) -> Any:
    """A text file that writes half a surrogate pair as ``?`` and leaves line ends as they are."""
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": ""}
    if not output:
        sys.stdout.reconfigure(**options)  # type: ignore[union-attr]
        return nullcontext(sys.stdout)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    return gzip.open(output, "wt", **options) if output.endswith(".gz") else Path(output).open("w", **options)
