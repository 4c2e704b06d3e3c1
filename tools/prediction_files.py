"""Where predictions go: a file, packed by its name, the standard output, or a folder for brat."""

import gzip
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from processors.brat import write_brat
from processors.examples import Example
from processors.text_files import RawText
from processors.word_cutting import WordCutter
from tools.prediction_formats import TEXT_FORMATS, text_format
from tools.predictor import FoundEntity

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
    words, tags = [entity.surface for entity in entities], [f"B-{entity.type}" for entity in entities]
    offsets = [(entity.start, entity.end) for entity in entities]
    return Example(str(item.id), words, tags, item.text, offsets)


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
