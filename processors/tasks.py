"""The corpora known by name, and how the files of any corpus are found."""

from dataclasses import dataclass
from pathlib import Path

from processors.brat import brat_files
from processors.examples import DataError
from processors.tag_schemes import OUTSIDE

SPLITS = ("train", "dev", "test")
_SPLIT_ALIASES = {
    "train": ("train", "training"),
    "dev": ("dev", "valid", "validation", "val", "testa"),
    "test": ("test", "testb", "predict"),
}
_DATA_SUFFIXES = {"", ".txt", ".json", ".jsonl", ".conll", ".tsv", ".bio", ".bmes", ".bioes", ".iob", ".iob2", ".ner"}
_DATA_SUFFIXES |= {f".{alias}" for aliases in _SPLIT_ALIASES.values() for alias in aliases}


@dataclass(frozen=True)
class Task:
    """What a corpus's name already tells; everything else is read off its files.

    Args:
        types: entity types, in the order of the labels; empty: read from ``labels.txt`` or the data.
        word_unit: how raw text is cut into words; see `processors.word_cutting.split_text`.
        plain_tags: whether the tags are classes of single words, such as parts of speech, and have no prefix.
        submission: writes the test predictions in the form that a benchmark's server takes.
    """

    types: tuple[str, ...] = ()
    word_unit: str = "auto"
    plain_tags: bool = False
    submission: str | None = None


_PENN_TREEBANK_TAGS = (
    *('"', "''", "#", "$", "(", ")", ",", ".", ":", "``", "CC", "CD", "DT", "EX", "FW", "IN", "JJ", "JJR", "JJS"),
    *("LS", "MD", "NN", "NNP", "NNPS", "NNS", "NN|SYM", "PDT", "POS", "PRP", "PRP$", "RB", "RBR", "RBS", "RP", "SYM"),
    *("TO", "UH", "VB", "VBD", "VBG", "VBN", "VBP", "VBZ", "WDT", "WP", "WP$", "WRB"),
)

TASKS = {
    "cner": Task(types=("CONT", "EDU", "LOC", "NAME", "ORG", "PRO", "RACE", "TITLE")),
    "cluener": Task(
        types=(
            *("address", "book", "company", "game", "government"),
            *("movie", "name", "organization", "position", "scene"),
        ),
        word_unit="char",
        submission="cluener",
    ),
    "conll2003": Task(types=("LOC", "MISC", "ORG", "PER")),
    "chunk": Task(types=("ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP")),
    "pos": Task(types=_PENN_TREEBANK_TAGS, plain_tags=True),
}


def _numbered_tags(types: tuple[str, ...], single: tuple[str, ...], outside_last: bool) -> tuple[str, ...]:
    begin_inside = [f"{prefix}-{entity_type}" for prefix in "BI" for entity_type in types]
    end = [f"S-{entity_type}" for entity_type in single]
    end = [*end, OUTSIDE] if outside_last else [OUTSIDE, *end]
    return ("X", *begin_inside, *end, "[START]", "[END]")


# The labels of models that BERT-NER-Pytorch has trained, in the order of their ids, which its configs do not name.
NUMBERED_TAGS = {
    "cner": _numbered_tags(TASKS["cner"].types, ("NAME", "ORG", "RACE"), outside_last=False),
    "cluener": _numbered_tags(TASKS["cluener"].types, TASKS["cluener"].types, outside_last=True),
}


def task_named(name: str) -> Task:
    """A known task, or the generic one, which learns everything from the data."""
    return TASKS.get(name.lower(), Task())


def find_split_file(data_dir: Path, split: str) -> Path | None:
    """The one file of ``data_dir`` whose name says that it holds this split: ``train.txt``, ``eng.testa``, ...

    A folder of that name is one too where brat's files are in it.

    Returns:
        The path, or ``None`` where there is no such file.

    Raises:
        DataError: the folder is missing, or several files fit.
    """
    if not data_dir.is_dir():
        raise DataError("there is no such data folder (--data_dir)", data_dir)
    found = sorted(
        path
        for path in data_dir.iterdir()
        if path.suffix.lower() in _DATA_SUFFIXES
        and (path.is_file() or brat_files(path))
        and any(part in _SPLIT_ALIASES[split] for part in path.name.lower().split("."))
    )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"several files could be the {split} split: {names}; name one with --{split}_file", data_dir)
    return found[0] if found else None


def missing_split_error(data_dir: Path | None, split: str) -> DataError:
    """Says what was looked for and what is there instead."""
    if data_dir is None:
        return DataError(f"no file for the {split} split; name a folder with --data_dir, or it with --{split}_file")
    there = ", ".join(sorted(path.name for path in data_dir.iterdir())[:12]) or "nothing"
    expected = ", ".join(f"{alias}.txt" for alias in _SPLIT_ALIASES[split])
    expected += " or .json, .bmes, ..., or a folder of brat's"
    message = f"no file for the {split} split; expected one named like {expected}; found {there}"
    return DataError(f"{message}; or name it with --{split}_file", data_dir)
