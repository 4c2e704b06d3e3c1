"""Hugging Face datasets, by name on the hub or from a local folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processors.examples import DataError, Example

_SPLIT_ALIASES = {"train": ("train",), "dev": ("validation", "dev", "valid"), "test": ("test",)}
_WORD_COLUMNS = ("tokens", "words")
_TAG_COLUMNS = ("ner_tags", "tags", "labels")


def open_hub_split(name: str, split: str, cache_dir: str | None = None) -> Any | None:
    """One split of a dataset, or ``None`` where the dataset has no such split.

    A folder written by ``save_to_disk`` is opened as it is; anything else is a name (or script-less folder) for
    ``datasets.load_dataset``; a configuration follows a colon, as in ``wikiann:de``.
    """
    import datasets

    if (Path(name) / "dataset_dict.json").exists():
        loaded = datasets.load_from_disk(name)
    else:
        path, _, configuration = name.partition(":")
        loaded = datasets.load_dataset(path, configuration or None, cache_dir=cache_dir)
    key = next((alias for alias in _SPLIT_ALIASES[split] if alias in loaded), None)
    return loaded[key] if key else None


def read_hub_split(dataset: Any, name: str, split: str, labelled: bool = True) -> Iterator[Example]:
    """Reads the word and tag columns; tags stored as class numbers are turned into their names.

    Raises:
        DataError: there is no column of words, or none of tags where they are needed.
    """
    word_column = _first_present(_WORD_COLUMNS, dataset.column_names)
    tag_column = _first_present(_TAG_COLUMNS, dataset.column_names)
    if word_column is None or (labelled and tag_column is None):
        expected = f"a column {'/'.join(_WORD_COLUMNS)} and a column {'/'.join(_TAG_COLUMNS)}"
        raise DataError(f"columns {', '.join(dataset.column_names)} in split {split}; expected {expected}", name)
    tag_names = _class_names(dataset.features[tag_column]) if tag_column else None
    for index, record in enumerate(dataset):
        tags = record[tag_column] if tag_column else None
        if tags is not None and tag_names is not None:
            tags = [tag_names[tag] for tag in tags]
        yield Example(f"{split}-{index}", list(record[word_column]), tags, line=index)


def _first_present(candidates: tuple[str, ...], columns: list[str]) -> str | None:
    return next((column for column in candidates if column in columns), None)


def _class_names(feature: Any) -> list[str] | None:
    """The names behind a ``Sequence(ClassLabel)`` column; ``None`` for a column of strings."""
    return getattr(getattr(feature, "feature", None), "names", None)
