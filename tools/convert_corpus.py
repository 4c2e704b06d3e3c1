"""Convert a corpus, or the predictions of a run, to another format, for example for an annotation tool.

python -m tools.convert_corpus outputs/run/test_predictions.jsonl to_correct.json --to label_studio
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.command_line import CommandLine
from common.durable import remove_folder
from processors.corpus import Corpus
from processors.examples import DataError
from processors.formats.writers import FORMATS, Format
from processors.offset_units import OFFSET_UNITS
from processors.spans import SPAN_EDGES
from processors.tasks import SPLITS, find_split_file
from processors.text.word_cutting import WORD_UNITS


def main() -> None:
    parser = CommandLine(description="Convert a corpus or predictions to another format.")
    parser.add_argument("source", help="file, folder of splits, brat folder, or hub:NAME of a dataset")
    parser.add_argument("target", type=Path, help="file to write, or folder for several splits or brat")
    parser.add_argument("--to", required=True, choices=list(FORMATS), help="format to write")
    parser.add_argument(
        "--tag_column", default="last", help="column of the tags: last, a number from 0, or a name; several with commas"
    )
    parser.add_argument("--word_column", default="", help="column of the words, in column files")
    parser.add_argument("--word_unit", default="", choices=WORD_UNITS, help="how raw text is split into words")
    edges = "entities that start or end inside a word"
    parser.add_argument("--span_edges", default="snap", choices=SPAN_EDGES, help=edges)
    parser.add_argument("--offset_unit", default="auto", choices=OFFSET_UNITS, help="how the source counts characters")
    args = parser.parse_args()
    reading = vars(args)
    source, target, to = (reading.pop(name) for name in ("source", "target", "to"))
    try:
        for line in convert_corpus(source, target, FORMATS[to], **reading):
            print(line)
    except (DataError, OSError) as error:
        sys.exit(f"convert_corpus: error: {error}")


def convert_corpus(source: str, target: Path, to: Format, **reading: Any) -> list[str]:
    """Convert each split of ``source``, or the single file.

    Args:
        source: a file or folder, or ``hub:NAME``.
        target: a file or folder that does not exist yet.
        to: one of `processors.formats.writers.FORMATS`.
        reading: options of `processors.corpus.Corpus`.

    Returns:
        Report lines: what was written, and what the format could not express.

    Raises:
        DataError: the source cannot be read, or the format cannot hold it.
    """
    if target.exists():
        raise DataError("already exists; name a new file or folder", target)
    corpus = _corpus_of(source, reading)
    if corpus.split_files:
        paths = {"test": target}
        target.parent.mkdir(parents=True, exist_ok=True)
    else:
        paths = {split: target / f"{split}{to.suffix}" for split in SPLITS if corpus.has(split)}
        target.mkdir(parents=True)
    try:
        return [line for split, path in paths.items() for line in _convert(corpus, split, path, to)]
    except BaseException:
        if target.is_dir():  # a partial corpus looks like a complete one
            remove_folder(target)
        else:
            target.unlink(missing_ok=True)
        raise


def _corpus_of(source: str, reading: dict[str, Any]) -> Corpus:
    """Open a hub dataset or a folder of splits, or a single file or brat folder as test, which needs no labels."""
    if source.startswith("hub:"):
        return Corpus("", dataset_name=source.removeprefix("hub:"), **reading)
    path = Path(source)
    if not path.exists():
        raise DataError("no such file or folder", path)
    if path.is_dir() and any(find_split_file(path, split) for split in SPLITS):
        return Corpus("", path, **reading)
    return Corpus("", split_files={"test": path}, **reading)


def _convert(corpus: Corpus, split: str, path: Path, to: Format) -> Iterator[str]:
    inventory = corpus.inventory(split)
    lost = to.write(corpus.examples(split), path)
    yield f"{path}: {inventory.sentences} texts, {inventory.words} words, {inventory.entities} entities"
    for findings in (inventory.findings, lost):
        yield from (f"{path}: {count} {kind}" for kind, count in findings.counts.items())
        yield from (f"{inventory.source}{remark}" for remark in findings.remarks)


if __name__ == "__main__":
    main()
