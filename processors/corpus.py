"""Corpora: finding and reading their splits, counting what they hold, and deriving the labels."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common.durable import atomic_write
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
from processors.formats.tags import TagReader
from processors.formats.text_lines import read_lines
from processors.parsed import (
    FORMAT_VERSION,
    Inventory,
    read_examples,
    read_hashes,
    read_inventory,
    sentence_hash,
    write_parsed,
)
from processors.spans import SpanReader
from processors.tasks import SPLITS, Task, find_split_file, missing_split_error, task_named
from processors.text.word_cutting import WORD_UNITS, LearnedCutter, WordCutter, learn_cutter

_LEARNED_FROM = 20_000  # sentences


@dataclass
class _Opened:
    """What was opened so far, shared by the variants of a corpus.

    Args:
        sources: the file or data set of each split; ``None`` where there is none.
        contents: the digest of each file, and its first bytes.
        parsed: folders in the cache, by digest.
        inventories: by digest.
        surfaces: of the entities of each split.
    """

    sources: dict[str, Any] = field(default_factory=dict)
    contents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    parsed: dict[str, Path] = field(default_factory=dict)
    inventories: dict[str, Inventory] = field(default_factory=dict)
    surfaces: dict[str, frozenset[str]] = field(default_factory=dict)


@dataclass
class Corpus:
    """The train, dev and test splits of a corpus, in any supported format.

    Args:
        task_name: a key of `processors.tasks.TASKS`; any other name is the generic task.
        data_dir: folder with one file per split and optionally ``labels.txt``.
        split_files: explicit file of each split; a relative path may also be relative to ``data_dir``.
        dataset_name: a Hugging Face data set to use instead of files; see `processors.formats.hub`.
        tag_column: column of the tags, or their key in JSON and Hugging Face data sets.
        word_column: column of the words in column files; see `processors.formats.columns.read_columns`.
        word_unit: how raw text is cut into words; by default as the task says.
        kept_words: words of raw text that are not cut; see `processors.text.word_cutting.WordCutter`.
        span_edges: how to treat entities that cut words; see `processors.spans.SpanReader`.
        offset_unit: unit of character offsets; see `processors.spans.SpanReader`.
        labels_file: a file with one tag or entity type per line that defines the labels.
        cache_dir: folder for parsed splits and downloads; ``None`` disables caching. With it, each file is parsed once.
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
    _opened: _Opened = field(default_factory=_Opened, init=False, repr=False, compare=False)

    def variant(self, **changes: Any) -> "Corpus":
        """The same corpus for another task, or with raw text cut otherwise; files are not opened again."""
        other = replace(self, **changes)
        other._opened = self._opened
        return other

    def has(self, split: str) -> bool:
        return self._source(split) is not None

    def examples(self, split: str) -> Iterator[Example]:
        """Read a split from the start; only a test split may be unlabelled.

        Raises:
            DataError: the split is missing or malformed, with file and line.
        """
        if self.cache_dir is not None:
            return read_examples(self._parsed(split))
        return self._read(split, Findings(), self._tag_reader())

    def inventory(self, split: str) -> Inventory:
        """What a split holds."""
        if self.cache_dir is not None:
            self._parsed(split)
        digest = self._digest(split, with_cutting=True)
        if digest not in self._opened.inventories:
            inventory, tags = Inventory(self.source_name(split)), self._tag_reader()
            for _ in inventory.count(self._read(split, inventory.findings, tags), tags):
                pass
            self._opened.inventories[digest] = inventory
        return self._opened.inventories[digest]

    def digest(self, split: str) -> str:
        """A hash of a split's content and of how it is read: where the way to cut texts changes nothing, without it."""
        return self._parsed(split).name if self.cache_dir is not None else self._digest(split, with_cutting=True)

    def parse_again(self, split: str) -> None:
        """Parses a split although the cache has it."""
        if self.cache_dir is not None:
            shutil.rmtree(self._parsed(split))
            del self._opened.parsed[self._digest(split, with_cutting=True)]

    def _parsed(self, split: str) -> Path:
        """The folder in the cache that holds a split; it is parsed if it is not there."""
        assert self.cache_dir is not None
        parsed, digest = self._opened.parsed, self._digest(split, with_cutting=True)
        if digest not in parsed:
            source = self.source_name(split)
            # Most files hold words: however texts are cut, their examples are those of the folder without the cutting.
            folders = [self.cache_dir / f"parsed-{one}" for one in (self._digest(split, with_cutting=False), digest)]
            for folder in folders:
                inventory = read_inventory(folder, source)
                if inventory is not None and (not inventory.cut_texts or inventory.cut_by == repr(self._cutting)):
                    break
            else:
                folder = next(one for one in folders if not one.is_dir())
                inventory, tags = Inventory(source, cut_by=repr(self._cutting)), self._tag_reader()
                examples = self._read(split, inventory.findings, tags)
                write_parsed(folder, inventory.count(examples, tags), inventory)
            parsed[digest], self._opened.inventories[digest] = folder, inventory
        return parsed[digest]

    def _tag_reader(self) -> TagReader:
        return TagReader(self._task.plain_tags)

    def _read(self, split: str, findings: Findings, tags: TagReader) -> Iterator[Example]:
        source, labelled = self._required_source(split), split != "test"
        reader = SpanReader(*self._span_reading, findings, self.kept_words)
        names = self._class_names
        _, start = self._opened.contents.get(split, ("", None))
        kind = detect_format(source, start) if isinstance(source, Path) else "data set"
        if self.word_column and kind != "columns":
            raise DataError("--word_column is for files of columns only; leave it out", self.source_name(split))
        match kind:
            case "data set":
                name = self.dataset_name
                return read_hub_split(source, name, split, reader, labelled, self.tag_column, tags, names)
            case "brat":
                return read_brat(source, reader, labelled)
            case "json":
                return read_json(source, split, reader, labelled, self.tag_column, tags, names)
            case "cmeee":
                return read_cmeee(source, split, reader, labelled)
            case "msra":
                return read_msra(source, split, reader)
        return read_columns(source, split, self.tag_column, labelled, tags, findings, self.word_column)

    def _digest(self, split: str, with_cutting: bool) -> str:
        if split not in self._opened.contents:
            source = self._required_source(split)
            if isinstance(source, Path):
                self._opened.contents[split] = _content_of(source)
            else:
                self._opened.contents[split] = source._fingerprint, b""
        content, _ = self._opened.contents[split]
        reading = (self.tag_column, self.word_column, self.span_edges, self.offset_unit, self._task.plain_tags)
        cutting = self._cutting if with_cutting else None
        described = repr((FORMAT_VERSION, content, split, reading, self._class_names, cutting))
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def source_name(self, split: str) -> str:
        source = self._required_source(split)
        return str(source) if isinstance(source, Path) else f"{self.dataset_name} ({split})"

    def sentence_hashes(self, split: str) -> list[str]:
        """A hash of the words of each sentence that has any."""
        if self.cache_dir is not None:
            return read_hashes(self._parsed(split))
        return [sentence_hash(example.words) for example in self.examples(split) if example.words]

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
        if self.cache_dir is None:
            return self._learn_cutter()
        path = self._parsed("train") / f"cutter-{self.word_unit or 'any'}.json"
        if not path.is_file():
            cutter, *shares = self._learn_cutter()
            with atomic_write(path) as fresh:
                fresh.write_text(json.dumps([asdict(cutter), *shares]), "utf-8")
        cutter, share, written_share = json.loads(path.read_text("utf-8"))
        return LearnedCutter(WordCutter(cutter["unit"], tuple(cutter["kept"])), share, written_share)

    def _learn_cutter(self) -> LearnedCutter:
        sample: list[Example] = []
        step = 1
        for index, example in enumerate(self.examples("train")):
            if index % step == 0:
                sample.append(example)
            if len(sample) > _LEARNED_FROM:
                sample, step = sample[::2], 2 * step
        word_unit, *_ = self._span_reading
        units = (self.word_unit,) if self.word_unit else WORD_UNITS
        return learn_cutter(sample, WordCutter(word_unit, self.kept_words), units)

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

    @property
    def _span_reading(self) -> tuple[str, str, str]:
        return self.word_unit or self._task.word_unit, self.span_edges, self.offset_unit

    @property
    def _cutting(self) -> tuple[str, tuple[str, ...]]:
        return self._span_reading[0], self.kept_words

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


def repeated_sentences(corpus: Corpus, split: str) -> int:
    """How many sentences of a split are repetitions of earlier ones."""
    hashes = corpus.sentence_hashes(split)
    return len(hashes) - len(set(hashes))


def sentences_of_train(corpus: Corpus, split: str) -> int:
    """How many sentences of another split are in train too."""
    known = set(corpus.sentence_hashes("train"))
    return sum(sentence in known for sentence in corpus.sentence_hashes(split))
