"""Hugging Face datasets, by name on the hub or from a local folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processors.column_reader import tag_keys
from processors.examples import DataError, Example, Findings
from processors.tag_schemes import join_tag, split_tag

_SPLIT_ALIASES = {
    "train": ("train",),
    "dev": ("validation", "dev", "valid", "validation_matched"),
    "test": ("test", "test_matched"),
    "dev_mismatched": ("validation_mismatched",),
    "test_mismatched": ("test_mismatched",),
}
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
        path, _, configuration = (name, "", "") if Path(name).exists() else name.partition(":")
        loaded = datasets.load_dataset(path, configuration or None, cache_dir=cache_dir)
    key = next((alias for alias in _SPLIT_ALIASES[split] if alias in loaded), None)
    return loaded[key] if key else None


def read_hub_split(
    dataset: Any,
    name: str,
    split: str,
    labelled: bool = True,
    tag_column: str = "last",
    plain_tags: bool = False,
    findings: Findings | None = None,
) -> Iterator[Example]:
    """Reads the word and tag columns; tags stored as class numbers are turned into their names.

    Args:
        dataset: the split.
        name: of the data set, in messages.
        split: names the examples.
        labelled: whether missing tags are an error.
        tag_column: name of the column of tags, with or without ``_tags``; ``last`` takes the usual names.
        plain_tags: the tags are classes of single words, as in `processors.column_reader.read_columns`.

    Raises:
        DataError: there is no column of words, or none of tags where they are needed.
    """
    findings = Findings() if findings is None else findings
    word_column = _first_present(_WORD_COLUMNS, dataset.column_names)
    asked = tag_keys(tag_column, _TAG_COLUMNS)
    found = _first_present(asked, dataset.column_names)
    if word_column is None or (labelled and found is None):
        expected = f"a column {'/'.join(_WORD_COLUMNS)} and a column {'/'.join(asked)} (--tag_column)"
        raise DataError(f"columns {', '.join(dataset.column_names)} in split {split}; expected {expected}", name)
    tag_names = _class_names(dataset.features[found]) if found else None
    place = f"{name} ({split})"
    for index, record in enumerate(dataset):
        words = list(record[word_column])
        try:
            tags = _checked_tags(record[found], tag_names, plain_tags, len(words), place, index) if found else None
            if tags is None and labelled:
                raise DataError(f"{found} marks labels as missing (null, or class -1)", place, index)
        except DataError as error:
            findings.fault(error)
            continue
        yield Example(f"{split}-{index}", words, tags, line=index)
    findings.raise_faults()


def _checked_tags(
    values: Any, tag_names: list[str] | None, plain_tags: bool, words: int, place: str, row: int
) -> list[str] | None:
    """The tags of one row; ``None`` where the data set marks them as missing, by a null or the class -1."""
    missing = (None, -1) if tag_names else (None,)
    if values is None or (values and all(value in missing for value in values)):
        return None
    if len(values) != words:
        raise DataError(f"{words} tokens but {len(values)} tags", place, row)
    if tag_names is not None:
        unknown = [value for value in values if value is None or not 0 <= value < len(tag_names)]
        if unknown:
            raise DataError(f"class {unknown[0]} is none of the {len(tag_names)} tags", place, row)
        values = [tag_names[value] for value in values]
    if plain_tags and all(isinstance(tag, str) for tag in values):
        return [join_tag("S", tag) for tag in values]
    for tag in values:
        try:
            split_tag(tag)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{tag!r} is not a tag: {error}", place, row) from None
    return list(values)


def _first_present(candidates: tuple[str, ...], columns: list[str]) -> str | None:
    return next((column for column in candidates if column in columns), None)


def _class_names(feature: Any) -> list[str] | None:
    """The names behind a ``Sequence(ClassLabel)`` column; ``None`` for a column of strings."""
    return getattr(getattr(feature, "feature", None), "names", None)
