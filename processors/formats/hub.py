"""Hugging Face data sets, from the hub or from a local folder or file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from processors.examples import DataError, Example
from processors.formats.records import TEXT_KEYS, WORD_KEYS, RecordReader
from processors.spans import Reading, Source
from processors.tasks import SPLIT_NAMES

_MULTI_NLI = {  # further names of its splits
    "dev": ("validation_matched",),
    "test": ("test_matched",),
    "dev_mismatched": ("validation_mismatched",),
    "test_mismatched": ("test_mismatched",),
}
_BUILDERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def open_hub_split(name: str, split: str, cache_dir: str | None = None) -> Any | None:
    """Open one split of a data set; ``None`` if it has no such split.

    ``name`` is a folder written by ``save_to_disk``, a CSV, JSON or Parquet file (the train split), or a name or folder
    for ``datasets.load_dataset``, optionally with a configuration after a colon, as in ``wikiann:de``.

    Raises:
        DataError: the data set cannot be opened; includes the error of ``datasets``.
    """
    import datasets

    path = Path(name)
    try:
        if (path / "dataset_dict.json").exists():
            loaded = datasets.load_from_disk(name)
        elif (path / "state.json").exists():
            single = datasets.load_from_disk(name)
            loaded = {str(single.split or "train"): single}
        elif path.is_file() and path.suffix in _BUILDERS:
            loaded = datasets.load_dataset(_BUILDERS[path.suffix], data_files=name, cache_dir=cache_dir)
        else:
            source, _, configuration = (name, "", "") if path.exists() else name.partition(":")
            loaded = datasets.load_dataset(source, configuration or None, cache_dir=cache_dir)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"cannot be opened: {error}{_advice(str(error), name)}", name) from error
    names = (*SPLIT_NAMES.get(split, ()), *_MULTI_NLI.get(split, ()))
    key = next((name for name in names if name in loaded), None)
    return loaded[key] if key else None


def _advice(error: str, name: str) -> str:
    if "scripts are no longer supported" in error:
        return (
            "; a dataset script is code that this version of `datasets` does not run: name a copy of the data in "
            "Parquet, or load it with datasets<4, write it with save_to_disk, and name that folder"
        )
    return f"\nName one after a colon: --dataset_name {name}:CONFIG" if "onfig name is missing" in error else ""


def read_hub_split(dataset: Any, name: str, reading: Reading) -> Iterator[Example]:
    """Read rows like records of a JSON file; class numbers are replaced by their names.

    Args:
        dataset: the split.
        name: name of the data set, for messages.

    Raises:
        DataError: there is no column of words or texts; after the last row, all rows that cannot be read.
    """
    split = reading.split
    named = {column: _naming(feature) for column, feature in dataset.features.items()}

    def records() -> Iterator[dict[str, Any]]:
        return ({column: named[column](value) for column, value in record.items()} for record in dataset)

    def examples(index: int, row: dict[str, Any]) -> list[Example]:
        return rows.read(row, Source(Path(f"{name} ({split})"), index, f"{split}-{index}"))

    rows = RecordReader(reading, records)
    if not {*WORD_KEYS, *TEXT_KEYS, "sentences"}.intersection(dataset.column_names):
        raise DataError(f"columns {', '.join(dataset.column_names)} in split {split}; expected {rows.expected}", name)
    return reading.examples_of(enumerate(records()), examples)


def _naming(feature: Any) -> Callable[[Any], Any]:
    """Return a function that replaces class numbers in a column by their names; class -1 becomes ``None``."""
    if hasattr(feature, "int2str"):
        return lambda value: None if value in (None, -1) else feature.int2str(value)
    if isinstance(feature, dict):
        inner = {key: _naming(one) for key, one in feature.items()}
        return lambda value: value and {key: inner[key](one) for key, one in value.items()}
    if hasattr(feature, "feature"):
        one = _naming(feature.feature)
        return lambda value: value and [one(item) for item in value]
    return lambda value: value
