"""A corpus: where its splits are, what they hold, and which labels follow from that."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.durable import atomic_write
from common.entities import Entity, outermost
from common.tag_dialects import UnknownTagsError, canonical_tags
from common.tag_schemes import (
    MARKUPS,
    OUTSIDE,
    entities_to_tags,
    split_tag,
    tag_set,
)
from processors.examples import DataError, Example, Findings
from processors.formats.brat import brat_files, brat_texts, read_brat
from processors.formats.columns import read_columns
from processors.formats.hub import open_hub_split, read_hub_split
from processors.formats.json_files import read_json
from processors.formats.line_formats import detect_format, read_cmeee, read_msra
from processors.formats.tags import TagReader
from processors.formats.text_lines import read_lines
from processors.spans import SpanReader
from processors.tasks import SPLITS, Task, find_split_file, missing_split_error, task_named
from processors.text.word_cutting import WORD_UNITS, WordCutter
from processors.text.word_learning import LearnedCutter, learn_cutter

_INVENTORY_VERSION = 6
_LEARNED_FROM = 20_000  # sentences


@dataclass
class Inventory:
    """What one split holds, counted in one pass over its file.

    Args:
        source: the file or data set.
        unlabelled: sentences without annotation.
        entities: nested and overlapping ones included.
        nested_entities: those of them that overlap a longer one, so that flat tags cannot express them.
        types: number of entities of each type.
        type_lines: the line on which each type is first seen.
        scheme: the tag scheme found; empty where the source has no tags that begin and end entities.
        illegal_transitions: neighbouring tags that the scheme does not allow, read as ``conlleval`` reads them.
        findings: what else was odd in the annotations; the remarks are without the name of the source.
    """

    source: str
    sentences: int = 0
    unlabelled: int = 0
    words: int = 0
    entities: int = 0
    nested_entities: int = 0
    types: dict[str, int] = field(default_factory=dict)
    type_lines: dict[str, int] = field(default_factory=dict)
    scheme: str = ""
    illegal_transitions: int = 0
    first_illegal_line: int = 0
    findings: Findings = field(default_factory=Findings)

    def place(self, line: int) -> str:
        """A line of the source for messages; in a folder of brat's, the file of a text."""
        folder = Path(self.source)
        return str(brat_texts(folder)[line - 1].with_suffix(".ann")) if folder.is_dir() else f"{self.source}:{line}"


@dataclass
class Corpus:
    """The train, dev and test splits of a corpus, in whatever format they are.

    Args:
        task_name: a name of `processors.tasks.TASKS`, or any other for the generic task.
        data_dir: folder with a file a split, and perhaps ``labels.txt``.
        split_files: named files, by split; a relative name may also be one in ``data_dir``.
        dataset_name: a Hugging Face data set used instead of files; see `processors.formats.hub`.
        tag_column: column of the tags, or their name in JSON and Hugging Face data sets.
        word_column: column of the words, in files of columns; see `processors.formats.columns.read_columns`.
        word_unit: how raw text is cut; the empty string leaves it to the task.
        kept_words: words of raw text that are kept whole; see `processors.text.word_cutting.WordCutter`.
        span_edges: what becomes of entities that are none of whole words; see `processors.spans.SpanReader`.
        offset_unit: how files of annotations count; likewise.
        labels_file: a file of tags or types, a line each, that fixes the labels.
        cache_dir: where counts and downloads are kept; ``None`` keeps nothing.
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

    def has(self, split: str) -> bool:
        return self._source(split) is not None

    def examples(self, split: str) -> Iterator[Example]:
        """Reads a split from the start; only a test split may be unlabelled.

        Raises:
            DataError: the split is missing or malformed, with file and line.
        """
        return self._read(split, Findings(), self._tag_reader())

    def _tag_reader(self) -> TagReader:
        return TagReader(self._task.plain_tags)

    def _read(self, split: str, findings: Findings, tags: TagReader) -> Iterator[Example]:
        source, labelled = self._required_source(split), split != "test"
        reader = SpanReader(*self._span_reading, findings, self.kept_words)
        names = self._class_names
        kind = detect_format(source) if isinstance(source, Path) else "data set"
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

    def digest(self, split: str) -> str:
        """A hash of a split's content and of how it is read."""
        source = self._required_source(split)
        if isinstance(source, Path):
            content = _digest_of_files(source)
        else:
            content = hashlib.new("blake2b", source._fingerprint.encode())
        columns, cutting = (self.tag_column, self.word_column), (*self._span_reading, self.kept_words)
        reading = (_INVENTORY_VERSION, split, *columns, *cutting, self._task.plain_tags, self._class_names)
        content.update(repr(reading).encode())
        return content.hexdigest()[:32]

    def source_name(self, split: str) -> str:
        source = self._required_source(split)
        return str(source) if isinstance(source, Path) else f"{self.dataset_name} ({split})"

    def inventory(self, split: str) -> Inventory:
        """Counts a split; the answer is kept beside the feature cache, under the content's hash."""
        if split not in self._inventories:
            self._inventories[split] = self._cached_inventory(split)
        return self._inventories[split]

    def entity_types(self) -> list[str]:
        """The entity types: of ``labels.txt``, else of the task, else all that the splits hold.

        Raises:
            DataError: the label file is empty or names a label twice.
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
        """All tags of the internal scheme, one of ``MARKUPS``, over the entity types.

        Where tags are classes of single words, those that a single word has.
        """
        types, scheme = self.entity_types(), MARKUPS[markup]
        if self._task.plain_tags:
            return [OUTSIDE, *(entities_to_tags([Entity(name, 0, 0)], 1, scheme)[0] for name in types)]
        return tag_set(types, scheme)

    def _types_file(self) -> Path | None:
        beside_data = self.data_dir and self.data_dir / "labels.txt"
        return self.labels_file or (beside_data if beside_data and beside_data.is_file() else None)

    def check_types(self, split: str, types: list[str]) -> None:
        """Raises a DataError, with the first line of each, for the types of this split that are none of ``types``."""
        inventory, findings = self.inventory(split), Findings()
        for entity_type in inventory.types:
            if entity_type not in types:
                message = f"entity type {entity_type!r} is not among the labels ({', '.join(types)})"
                file = self._types_file() or "labels.txt"
                advice = f"add it to {file}, or correct the data; a trained model takes no new types"
                findings.fault(DataError(f"{message}; {advice}", inventory.place(inventory.type_lines[entity_type])))
        findings.raise_faults()

    def learned_cutter(self) -> LearnedCutter:
        """How raw text is cut for a model of the train split, by ``word_unit`` where that is set."""
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
        """Types of a split that no training sentence has, so that no model can learn them."""
        if not self.has("train"):
            return []
        return sorted(set(self.inventory(split).types) - set(self.inventory("train").types))

    @property
    def _task(self) -> Task:
        return task_named(self.task_name)

    @property
    def _class_names(self) -> tuple[str, ...]:
        """Names of tags that data hold as numbers: the lines of the label file."""
        path = self._types_file()
        return tuple(line.strip() for _, line in read_lines(path) if line.strip()) if path else ()

    @property
    def _span_reading(self) -> tuple[str, str, str]:
        return self.word_unit or self._task.word_unit, self.span_edges, self.offset_unit

    @cached_property
    def _inventories(self) -> dict[str, Inventory]:
        return {}

    @cached_property
    def _sources(self) -> dict[str, Any]:
        return {}

    def _source(self, split: str) -> Any:
        if split not in self._sources:
            if self.dataset_name:
                downloads = str(self.cache_dir) if self.cache_dir else None
                self._sources[split] = open_hub_split(self.dataset_name, split, downloads)
            else:
                named = self.split_files.get(split)
                in_data_dir = named and self.data_dir and self.data_dir / named
                if named and in_data_dir and not named.exists() and in_data_dir.exists():
                    named = in_data_dir
                self._sources[split] = named or (self.data_dir and find_split_file(self.data_dir, split))
        return self._sources[split]

    def _required_source(self, split: str) -> Any:
        source = self._source(split)
        if source is None:
            if self.dataset_name:
                raise DataError(f"the data set has no {split} split", self.dataset_name)
            raise missing_split_error(self.data_dir, split)
        if isinstance(source, Path) and not (source.is_file() or brat_files(source)):
            looked = f", nor {self.data_dir / source}" if self.data_dir and not source.is_absolute() else ""
            raise DataError(f"there is no such file, nor a folder of brat's (--{split}_file){looked}", source)
        return source

    def _cached_inventory(self, split: str) -> Inventory:
        if self.cache_dir is None:
            return self._counted(split)
        path = self.cache_dir / f"inventory-{self.digest(split)}.json"
        if path.is_file():
            kept = json.loads(path.read_text("utf-8"))
            return Inventory(**{**kept, "source": self.source_name(split), "findings": Findings(**kept["findings"])})
        inventory = self._counted(split)
        with atomic_write(path) as fresh:
            fresh.write_text(json.dumps(asdict(inventory)), "utf-8")
        return inventory

    def _counted(self, split: str) -> Inventory:
        inventory, tags = Inventory(self.source_name(split)), self._tag_reader()
        for example in self._read(split, inventory.findings, tags):
            entities = example.entities or []
            inventory.sentences += 1
            inventory.unlabelled += example.entities is None
            inventory.words += len(example.words)
            inventory.entities += len(entities)
            inventory.nested_entities += len(entities) - len(outermost(entities))
            for entity in entities:
                inventory.types[entity.type] = inventory.types.get(entity.type, 0) + 1
                inventory.type_lines.setdefault(entity.type, example.line_of(entity.first_word))
        if not inventory.sentences:
            raise DataError("no sentence in this file; is it the right one, and not empty?", inventory.source)
        if scheme := tags.scheme(inventory.source):
            inventory.scheme = scheme.name
            inventory.illegal_transitions, inventory.first_illegal_line = tags.illegal(scheme)
        remarks = inventory.findings.remarks
        remarks[:] = [remark.removeprefix(inventory.source) for remark in remarks]
        return inventory


def _digest_of_files(path: Path) -> "hashlib._Hash":
    """Of a file's content, or of the names and contents of a folder's files."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b")
    content = hashlib.new("blake2b")
    for one in brat_files(path):
        content.update(f"{one.relative_to(path).as_posix()}\0{one.stat().st_size}\0".encode())
        content.update(one.read_bytes())
    return content


def _types_of_file(path: Path) -> list[str]:
    """Entity types of a label file, which lists either types, or tags: then all have a prefix, or ``O`` is there."""
    lines = [(number, line.strip()) for number, line in read_lines(path) if line.strip()]
    if not lines:
        raise DataError("this label file is empty; write one tag or entity type a line, or remove it", path)
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
    """How many sentences of a split stand earlier in it."""
    hashes = _sentence_hashes(corpus, split)
    return len(hashes) - len(set(hashes))


def sentences_of_train(corpus: Corpus, split: str) -> int:
    """How many sentences of another split stand in train too."""
    known = set(_sentence_hashes(corpus, "train"))
    return sum(sentence in known for sentence in _sentence_hashes(corpus, split))


def _sentence_hashes(corpus: Corpus, split: str) -> list[str]:
    """A hash of the words of each sentence that has any, kept beside the counts of the corpus."""
    path = corpus.cache_dir and corpus.cache_dir / f"sentences-{corpus.digest(split)}.txt"
    if path and path.is_file():
        return path.read_text("utf-8").split()
    hashes = [_hash(example.words) for example in corpus.examples(split) if example.words]
    if path:
        with atomic_write(path) as fresh:
            fresh.write_text("\n".join(hashes), "utf-8")
    return hashes


def _hash(words: list[str]) -> str:
    return hashlib.blake2b("\n".join(words).encode(), digest_size=8).hexdigest()
