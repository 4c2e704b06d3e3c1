"""Corpora known by name, and the search for the split files of any corpus."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.tag_schemes import OUTSIDE
from processors.examples import DataError
from processors.formats.brat import brat_files
from processors.formats.columns import CHUNK_TYPES

SPLITS = ("train", "dev", "test")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "dev": ("dev", "devel", "development", "valid", "validation", "val", "testa"),
    "test": ("test", "testing", "testb", "predict"),
}
_SPLIT_OF = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
# A split name next to a digit, a change of case or one of these words: wnut17train, nerTest, traindata, devset.
_WORDS_OF_NAMES = re.compile(
    rf"(?:{'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})(?=set|data|file|corpus)|[A-Z]?[a-z]+|[A-Z]+|\d+"
)
_NOT_TEXT = re.compile(
    r".*\.(7z|arrow|bak|bin|bz2|cfg|docx?|gz|html|ini|ipynb|jpg|lock|log|md|np[yz]|parquet|pdf|pkl|png|pt|pyc?|rar"
    r"|safetensors|sh|swp|tar|tgz|tmp|xlsx?|xz|ya?ml|zip)"
)


@dataclass(frozen=True)
class Task:
    """What is known of a corpus by its name; everything else is read from its files.

    Args:
        types: entity types, in the order of the labels; if empty, read from ``labels.txt`` or the data.
        word_unit: how raw text is cut into words; see `processors.text.word_cutting.WordCutter`.
        plain_tags: whether the tags are classes of single words, such as parts of speech, and have no prefix.
        submission: format of the test predictions for the server of the benchmark.
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
    "chunk": Task(types=CHUNK_TYPES),
    "pos": Task(types=_PENN_TREEBANK_TAGS, plain_tags=True),
}


def _numbered_tags(types: tuple[str, ...], single: tuple[str, ...], outside_last: bool) -> tuple[str, ...]:
    begin_inside = [f"{prefix}-{entity_type}" for prefix in "BI" for entity_type in types]
    end = [f"S-{entity_type}" for entity_type in single]
    end = [*end, OUTSIDE] if outside_last else [OUTSIDE, *end]
    return ("X", *begin_inside, *end, "[START]", "[END]")


# Labels of models trained by BERT-NER-Pytorch, in the order of their ids; its configs do not contain them.
NUMBERED_TAGS = {
    "cner": _numbered_tags(TASKS["cner"].types, ("NAME", "ORG", "RACE"), outside_last=False),
    "cluener": _numbered_tags(TASKS["cluener"].types, TASKS["cluener"].types, outside_last=True),
}
# The same of its span heads, whose labels are types.
NUMBERED_TYPES = {
    "cner": (OUTSIDE, "CONT", "ORG", "LOC", "EDU", "NAME", "PRO", "RACE", "TITLE"),
    "cluener": (OUTSIDE, *TASKS["cluener"].types),
}


def task_named(name: str) -> Task:
    """Return a known task, or the generic one, which reads everything from the data."""
    return TASKS.get(name.lower(), Task())


def find_split_file(data_dir: Path, split: str) -> Path | None:
    """Find the file of a split by its name: ``train_data.txt``, ``eng.testa``, ``wnut17dev.conll``.

    A brat folder may be a split too.

    Returns:
        The path, or ``None`` if there is no such file.

    Raises:
        DataError: the folder is missing, or several files match equally well.
    """
    if not data_dir.is_dir():
        raise DataError("there is no such data folder (--data_dir)", data_dir)
    found: dict[int, list[Path]] = {}
    for path in sorted(data_dir.iterdir()):
        clearness, named = _split_named(path.name)
        if named == split and (path.is_file() or brat_files(path)):
            found.setdefault(clearness, []).append(path)
    best = found[min(found)] if found else []
    if len(best) > 1:
        names = ", ".join(path.name for path in best)
        raise DataError(f"several files could be the {split} split: {names}; name one with --{split}_file", data_dir)
    return best[0] if best else None


def _split_named(name: str) -> tuple[int, str | None]:
    """Rank (0 is the best match) and split that a file name denotes; ``None`` if it denotes no split."""
    if name.startswith(".") or name.endswith("~") or _NOT_TEXT.fullmatch(name.lower()):
        return 0, None
    words = [word.lower() for word in _WORDS_OF_NAMES.findall(name)]
    for clearness, parts in enumerate((name.lower().split("."), re.split(r"[._\s-]+", name.lower()), words)):
        splits = {_SPLIT_OF[part] for part in parts if part in _SPLIT_OF}
        if splits:
            return clearness, splits.pop() if len(splits) == 1 else None
    return 0, None


def missing_split_error(data_dir: Path | None, split: str) -> DataError:
    """Error for a missing split: what was expected and what was found."""
    if data_dir is None:
        return DataError(f"no file for the {split} split; set --data_dir or --{split}_file")
    there = ", ".join(sorted(path.name for path in data_dir.iterdir())[:12]) or "nothing"
    aliases = ", ".join(SPLIT_NAMES[split])
    message = f"no file for the {split} split; expected one of {aliases} as a word in the name of a text file, as in "
    message += f"{split}.txt or corpus_{split}.conll, or of a brat folder; found {there}"
    return DataError(f"{message}; or name it with --{split}_file", data_dir)
