"""Corpora: finding and reading their splits, counting what they hold, and deriving the labels."""

import hashlib
import json
import re
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from common.durable import atomic_write
from common.entities import outermost
from common.tag_dialects import UnknownTagsError, canonical_tags
from common.tag_schemes import (
    MARKUPS,
    OUTSIDE,
    split_tag,
    tag_set,
)
from processors.examples import DataError, Example, Findings
from processors.formats.brat import brat_files, read_brat
from processors.formats.columns import read_columns
from processors.formats.hub import open_hub_split, read_hub_split
from processors.formats.json_files import read_json
from processors.formats.line_formats import START, detect_format, read_cmeee, read_msra
from processors.formats.text_lines import read_lines
from processors.parsed import (
    FORMAT_VERSION,
    Inventory,
    read_examples,
    read_hashes,
    read_inventory,
    write_parsed,
)
from processors.spans import Reading, TagReader
from processors.tasks import SPLITS, Task, find_split_file, missing_split_error, task_named
from processors.text.word_cutting import WORD_UNITS, LearnedCutter, WordCutter, learn_cutter

_LEARNED_FROM = 20_000  # at most so many sentences
READERS: dict[str, Callable[[Path, Reading], Iterator[Example]]] = {
    "brat": read_brat,
    "json": read_json,
    "cmeee": read_cmeee,
    "msra": read_msra,
    "columns": read_columns,
}


class _Opened:
    """What was opened so far, shared by the variants of a corpus.

    Args:
        folder: holds the parsed splits; by default a temporary one.
    """

    def __init__(self, folder: Path | None) -> None:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="corpus-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder
        self.sources: dict[str, Any] = {}  # file or data set of each split; None where there is none
        self.contents: dict[str, tuple[str, bytes]] = {}  # digest of each file, and its first bytes
        self.parsed: dict[str, tuple[Path, Inventory]] = {}  # by digest
        self.surfaces: dict[str, frozenset[str]] = {}  # of the entities of each split


@dataclass
class Corpus:
    """The train, dev and test splits of a corpus, in any supported format.

    Args:
        task_name: a key of `processors.tasks.TASKS`; any other name is the generic task.
        data_dir: folder with one file per split and optionally ``labels.txt``.
        split_files: explicit file of each split; a relative path may also be relative to ``data_dir``.
        dataset_name: a Hugging Face data set to use instead of files; see `processors.formats.hub`.
        tag_column: column of the tags, or their key in JSON and Hugging Face data sets.
        word_column: column of the words in column files; see `processors.spans.Reading`.
        word_unit: how raw text is cut into words; by default as the task says.
        kept_words: words of raw text that are not cut; see `processors.text.word_cutting.WordCutter`.
        span_edges: how to treat entities that cut words; see `processors.spans.Reading`.
        offset_unit: unit of character offsets; see `processors.spans.Reading`.
        labels_file: a file with one tag or entity type per line that defines the labels.
        cache_dir: folder for parsed splits and downloads: each file is parsed once. By default it is temporary.
    """

    task_name: str
    data_dir: Path | None = None
    split_files: dict[str, Path] = field(default_factory=dict)
    dataset_name: str = ""
    tag_column: str = "last"
    word_column: str = ""
    word_unit: str = ""
    kept_words: tuple[str, ...] = ()
    span_edges: str = "snap"
    offset_unit: str = "auto"
    labels_file: Path | None = None
    cache_dir: Path | None = None
    _opened: _Opened = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._opened = _Opened(self.cache_dir)

    def variant(self, **changes: Any) -> "Corpus":
        """The same corpus for another task, or with raw text cut otherwise; files are not opened again."""
        other = copy(self)
        vars(other).update(changes)
        return other

    def has(self, split: str) -> bool:
        return self._source(split) is not None

    def examples(self, split: str) -> Iterator[Example]:
        """Read a split from the start; only a test split may be unlabelled.

        Raises:
            DataError: the split is missing or malformed, with file and line.
        """
        return self._examples_in(self._parsed(split)[0])

    def _examples_in(self, folder: Path) -> Iterator[Example]:
        """A generator that holds the corpus, and with it its temporary folder, as long as it is used."""
        yield from read_examples(folder)

    def examples_with_lines(self, split: str) -> Iterator[Example]:
        """Read a split from its file instead of the cache, which does not have the lines of examples and words."""
        return self._read(split, self._reading(split))

    def inventory(self, split: str) -> Inventory:
        """What a split holds."""
        return self._parsed(split)[1]

    def digest(self, split: str) -> str:
        """A hash of a split's content and of how it is read: where the way to cut texts changes nothing, without it."""
        return self._parsed(split)[0].name

    def parse_again(self, split: str) -> None:
        """Parses a split although the cache has it."""
        shutil.rmtree(self._parsed(split)[0])
        del self._opened.parsed[self._digest(split, self._reading(split))]

    def _parsed(self, split: str) -> tuple[Path, Inventory]:
        """The folder that holds a parsed split, and what was counted; it is parsed if it is not there."""
        reading = self._reading(split)
        digest = self._digest(split, reading)
        if digest not in self._opened.parsed:
            source, cut_by = self.source_name(split), repr((reading.word_unit, reading.kept_words))
            # Most files hold words: however texts are cut, their examples are those of the folder without the cutting.
            digests = (self._digest(split, replace(reading, word_unit="", kept_words=())), digest)
            folders = [self._opened.folder / f"parsed-{one}" for one in digests]
            for folder in folders:
                inventory = read_inventory(folder, source)
                if inventory is not None and (not inventory.cut_texts or inventory.cut_by == cut_by):
                    break
            else:
                folder = next(one for one in folders if not one.is_dir())
                inventory = Inventory(source, cut_by=cut_by, findings=reading.findings)
                write_parsed(folder, inventory.count(self._read(split, reading), reading.tags), inventory)
            self._opened.parsed[digest] = folder, inventory
        return self._opened.parsed[digest]

    def _reading(self, split: str) -> Reading:
        return Reading(
            self.word_unit or self._task.word_unit,
            self.span_edges,
            self.offset_unit,
            self.kept_words,
            split,
            labelled=split != "test",
            tag_column=self.tag_column,
            word_column=self.word_column,
            class_names=self._class_names,
            tags=TagReader(self._task.plain_tags),
        )

    def _read(self, split: str, reading: Reading) -> Iterator[Example]:
        source = self._required_source(split)
        is_file = isinstance(source, Path)
        kind = detect_format(source, self._opened.contents[split][1]) if is_file else "data set"
        if self.word_column and kind != "columns":
            raise DataError("--word_column is for files of columns only; leave it out", self.source_name(split))
        return READERS[kind](source, reading) if is_file else read_hub_split(source, self.dataset_name, reading)

    def _digest(self, split: str, reading: Reading) -> str:
        if split not in self._opened.contents:
            source = self._required_source(split)
            is_file = isinstance(source, Path)
            self._opened.contents[split] = _content_of(source) if is_file else (source._fingerprint, b"")
        described = repr((FORMAT_VERSION, self._opened.contents[split][0], reading))
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def source_name(self, split: str) -> str:
        source = self._required_source(split)
        return str(source) if isinstance(source, Path) else f"{self.dataset_name} ({split})"

    def sentence_hashes(self, split: str) -> list[str]:
        """A hash of the words of each sentence that has any."""
        return read_hashes(self._parsed(split)[0])

    def surfaces(self, split: str) -> frozenset[str]:
        """The entities of a split as text, their words joined by spaces."""
        digest = self.digest(split)
        if digest not in self._opened.surfaces:
            self._opened.surfaces[digest] = frozenset(
                " ".join(example.words[entity.first_word : entity.last_word + 1])
                for example in self.examples(split)
                for entity in example.entities or ()
            )
        return self._opened.surfaces[digest]

    def entity_types(self) -> list[str]:
        """The entity types: from the label file, else from the task, else all that occur in the splits.

        Raises:
            DataError: the label file is empty or lists a label twice.
        """
        types_file = self._types_file()
        if types_file:
            return _types_of_file(types_file)
        if self._task.types:
            return list(self._task.types)
        splits = [split for split in SPLITS if self.has(split)]
        if not splits:
            raise missing_split_error(self.data_dir, "train")
        return sorted({entity_type for split in splits for entity_type in self.inventory(split).types})

    def label_list(self, markup: str) -> list[str]:
        """All tags of the internal scheme, one of ``MARKUPS``, for the entity types."""
        return tag_set(self.entity_types(), MARKUPS[markup], self._task.plain_tags)

    def _types_file(self) -> Path | None:
        beside_data = self.data_dir and self.data_dir / "labels.txt"
        return self.labels_file or (beside_data if beside_data and beside_data.is_file() else None)

    def check_types(self, split: str, types: list[str]) -> None:
        """Raise a DataError for types of this split that are not in ``types``, with the first line of each."""
        inventory, findings = self.inventory(split), Findings()
        for entity_type in inventory.types:
            if entity_type not in types:
                message = f"entity type {entity_type!r} is not among the labels ({', '.join(types)})"
                file = self._types_file() or "labels.txt"
                advice = f"add it to {file}, or correct the data; a trained model cannot take new types"
                findings.fault(DataError(f"{message}; {advice}", inventory.place(inventory.type_lines[entity_type])))
        findings.raise_faults()

    def learned_cutter(self) -> LearnedCutter:
        """How raw text is cut for a model of the train split, by ``word_unit`` where that is set."""
        folder, inventory = self._parsed("train")
        path = folder / f"cutter-{self.word_unit or 'any'}.json"
        if not path.is_file():
            step = 1 << ((inventory.sentences - 1) // _LEARNED_FROM).bit_length()
            sample = list(islice(self.examples("train"), 0, None, step))
            reading = WordCutter(self.word_unit or self._task.word_unit, self.kept_words)
            cutter, *shares = learn_cutter(sample, reading, (self.word_unit,) if self.word_unit else WORD_UNITS)
            with atomic_write(path) as fresh:
                fresh.write_text(json.dumps([asdict(cutter), *shares]), "utf-8")
        found, share, written_share = json.loads(path.read_text("utf-8"))
        return LearnedCutter(WordCutter(found["unit"], tuple(found["kept"])), share, written_share)

    def types_unseen_in_training(self, split: str) -> list[str]:
        """Types of a split that do not occur in the train split, so that no model can learn them."""
        if not self.has("train"):
            return []
        return sorted(set(self.inventory(split).types) - set(self.inventory("train").types))

    @property
    def _task(self) -> Task:
        return task_named(self.task_name)

    @property
    def _class_names(self) -> tuple[str, ...]:
        """Names of tags that the data store as numbers: the lines of the label file."""
        path = self._types_file()
        return tuple(line.strip() for _, line in read_lines(path) if line.strip()) if path else ()

    def _source(self, split: str) -> Any:
        if split not in self._opened.sources:
            if self.dataset_name:
                downloads = str(self.cache_dir) if self.cache_dir else None
                self._opened.sources[split] = open_hub_split(self.dataset_name, split, downloads)
            else:
                named = self.split_files.get(split)
                in_data_dir = named and self.data_dir and self.data_dir / named
                if named and in_data_dir and not named.exists() and in_data_dir.exists():
                    named = in_data_dir
                self._opened.sources[split] = named or (self.data_dir and find_split_file(self.data_dir, split))
        return self._opened.sources[split]

    def _required_source(self, split: str) -> Any:
        source = self._source(split)
        if source is None:
            if self.dataset_name:
                raise DataError(f"the data set has no {split} split", self.dataset_name)
            raise missing_split_error(self.data_dir, split)
        if isinstance(source, Path) and not (source.is_file() or brat_files(source)):
            looked = f", nor {self.data_dir / source}" if self.data_dir and not source.is_absolute() else ""
            raise DataError(f"there is no such file or brat folder (--{split}_file){looked}", source)
        return source


def _content_of(path: Path) -> tuple[str, bytes]:
    """A hash of a file's content, or of the names and contents of a folder's files, and the first bytes of a file."""
    content, start = hashlib.new("blake2b"), b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(START)
            content.update(start)
            while block := file.read(2**20):
                content.update(block)
        return content.hexdigest(), start
    for one in brat_files(path):
        content.update(f"{one.relative_to(path).as_posix()}\0{one.stat().st_size}\0".encode())
        content.update(one.read_bytes())
    return content.hexdigest(), start


def _types_of_file(path: Path) -> list[str]:
    """Read entity types from a file of types or of tags; it lists tags if all have a prefix or ``O`` is among them."""
    lines = [(number, line.strip()) for number, line in read_lines(path) if line.strip()]
    if not lines:
        raise DataError("this label file is empty; write one tag or entity type per line, or remove it", path)
    seen: dict[str, int] = {}
    findings = Findings()
    for number, label in lines:
        if label in seen:
            message = f"label {label!r} is already on line {seen[label]}; remove one"
            findings.fault(DataError(message, path, number))
        seen.setdefault(label, number)
    types = list(seen)
    if OUTSIDE in seen or all(re.match(r"[BIESMLU][-_].", label) for label in seen):
        try:
            tags = canonical_tags(seen).tags.values()
            types = list(dict.fromkeys(split_tag(tag)[1] for tag in tags if tag != OUTSIDE))
        except UnknownTagsError as error:
            message = f"{error}; list tags, or entity types without O"
            findings.fault(DataError(message, path, min(seen[tag] for tag in error.tags)))
    findings.raise_faults()
    return types


def words_by_type(corpus: Corpus, split: str) -> Counter[str]:
    """How many words of a split are in entities of each type, and how many under ``O`` in none.

    Of overlapping entities the longest counts; words without annotation do not.
    """
    counts: Counter[str] = Counter()
    for example in corpus.examples(split):
        if example.entities is not None:
            unknown = sum(last + 1 - first for first, last in example.unannotated)
            counts[OUTSIDE] += len(example.words) - unknown
            for entity in outermost(example.entities):
                counts[entity.type] += entity.words
                counts[OUTSIDE] -= entity.words
    return counts


def repeated_sentences(corpus: Corpus, split: str) -> int:
    """How many sentences of a split are repetitions of earlier ones."""
    hashes = corpus.sentence_hashes(split)
    return len(hashes) - len(set(hashes))


def sentences_of_train(corpus: Corpus, split: str) -> int:
    """How many sentences of another split are in train too."""
    known = set(corpus.sentence_hashes("train"))
    return sum(sentence in known for sentence in corpus.sentence_hashes(split))
