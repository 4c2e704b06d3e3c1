"""Several corpora as one: a YAML file names them, the types that each annotates, weights, and new names of types."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from processors.corpus import Corpus
from processors.examples import DataError, Example, Findings
from processors.spans import Reading
from processors.tasks import SPLITS

_FILES = {f"{split}_file": split for split in SPLITS}
_READING = ("dataset_name", "tag_column", "word_column", "word_unit", "span_edges", "offset_unit")
_OWN = ("types", "weight", "rename")
_KEYS = ("data_dir", *_FILES, "labels", *_READING, *_OWN)


@dataclass(frozen=True)
class Member:
    """One of several corpora.

    Args:
        name: name of the corpus, which the ids of its texts begin with.
        corpus: its splits.
        types: types that it annotates completely, by their new names; ``None``: those that are found in it.
        weight: how often its texts are seen in an epoch.
        rename: new names of types.
    """

    name: str
    corpus: Corpus
    types: tuple[str, ...] | None = None
    weight: float = 1.0
    rename: Mapping[str, str] = field(default_factory=dict)

    def found_types(self) -> set[str]:
        """The types that its texts show or its label file lists, by their new names."""
        return {self.rename.get(name, name) for name in self.corpus.entity_types()}

    def complete_types(self) -> set[str]:
        return self.found_types() if self.types is None else set(self.types)

    def examples(self, examples: Iterable[Example], everything: frozenset[str]) -> Iterator[Example]:
        """Texts of the corpus as those of all, where ``everything`` are the types of all corpora."""
        complete = frozenset(self.complete_types())
        return (self._example(one, complete, everything) for one in examples)

    def _example(self, example: Example, complete: frozenset[str], everything: frozenset[str]) -> Example:
        new = self.rename
        if example.complete is not None:
            complete = frozenset(new.get(one, one) for one in example.complete)
        entities = example.entities
        if entities is not None:
            entities = [one._replace(type=new.get(one.type, one.type)) for one in entities]
        return replace(
            example,
            guid=f"{self.name}/{example.guid}",
            document=f"{self.name}/{example.document}" if example.document else "",
            entities=entities,
            complete=None if entities is None or everything <= complete else complete,
        )


@dataclass
class Corpora(Corpus):
    """Several corpora, whose types are the union of theirs. Each annotates only some of them completely.

    Args:
        file: the YAML file, for messages.
        members: the corpora.
    """

    file: Path = Path()
    members: tuple[Member, ...] = ()

    def has(self, split: str) -> bool:
        return any(member.corpus.has(split) for member in self.members)

    def source_name(self, split: str) -> str:
        if not self.has(split):
            raise DataError(f"none of the corpora has a {split} split", self.file)
        return f"{self.file} ({split})"

    @staticmethod
    def member_of(guid: str) -> str:
        """Name of the corpus that a text is from."""
        return guid.partition("/")[0]

    def found_types(self) -> frozenset[str]:
        """The types of all corpora."""
        return frozenset().union(*(member.found_types() for member in self.members))

    def entity_types(self) -> list[str]:
        return super().entity_types() if self.labels_file else sorted(self.found_types())

    def examples_with_lines(self, split: str) -> Iterator[Example]:
        everything = self.found_types()
        for member, corpus in self._with(split, self._reading(split)):
            yield from member.examples(corpus.examples_with_lines(split), everything)

    def _read(self, split: str, reading: Reading) -> Iterator[Example]:
        self.check()
        everything = self.found_types()
        for member, corpus in self._with(split, reading):
            found = corpus.inventory(split).findings
            for kind, count in found.counts.items():
                reading.findings.add(f"{kind} ({member.name})", count=count)
            reading.findings.remarks.extend(f"{corpus.source_name(split)}{remark}" for remark in found.remarks)
            yield from member.examples(corpus.examples(split), everything)

    def _digest(self, split: str, reading: Reading) -> str:
        self.source_name(split)
        of_members = [
            (member.name, corpus.digest(split), sorted(member.complete_types()), sorted(member.rename.items()))
            for member, corpus in self._with(split, reading)
        ]
        described = repr((of_members, sorted(self.found_types()), reading))
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def _with(self, split: str, reading: Reading) -> Iterator[tuple[Member, Corpus]]:
        """The corpora that have a split, with raw text cut as the reading says, or else as they say themselves."""
        for member in self.members:
            if member.corpus.has(split):
                cut = {"word_unit": reading.word_unit or member.corpus.word_unit, "kept_words": reading.kept_words}
                yield member, member.corpus.variant(**cut)

    def check(self) -> None:
        """Raise a DataError for types that no corpus has, in ``types`` or as an old name in ``rename``."""
        findings, everything = Findings(), self.found_types()
        for member in self.members:
            if unknown := sorted(set(member.types or ()) - everything):
                known = ", ".join(sorted(everything))
                message = f"{member.name}: types {', '.join(unknown)} are found in no corpus ({known})"
                findings.fault(DataError(message, self.file))
            if unknown := sorted(member.rename.keys() - set(member.corpus.entity_types())):
                own = ", ".join(member.corpus.entity_types())
                message = f"{member.name}: rename: {', '.join(unknown)} is none of its types ({own})"
                findings.fault(DataError(message, self.file))
        findings.raise_faults()


def read_corpora(path: Path, task_name: str, **of_all: Any) -> Corpora:
    """Read the YAML file that names several corpora.

    Args:
        of_all: arguments of `processors.corpus.Corpus` for all of them together.

    Raises:
        DataError: lists all that is wrong with the file.
    """
    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read as YAML: {error}", path) from error
    if not isinstance(entries, dict) or not entries:
        raise DataError("expected a mapping of names of corpora to their settings", path)
    findings, members = Findings(), []
    for name, entry in entries.items():
        faults = list(_faults(entry))
        if not isinstance(name, str) or not name or "/" in name:
            faults.append("the name of a corpus is a word without a slash")
        for fault in faults:
            findings.fault(DataError(f"{name}: {fault}", path))
        if not faults:
            members.append(_member(name, entry, path.parent, of_all.get("cache_dir")))
    findings.raise_faults()
    for member in members:
        try:
            if not any(map(member.corpus.has, SPLITS)):
                findings.fault(DataError(f"{member.name}: no split found in {member.corpus.data_dir}", path))
        except DataError as error:
            findings.fault(DataError(f"{member.name}: {error}", path))
    findings.raise_faults()
    return Corpora(task_name, file=path, members=tuple(members), **of_all)


def _faults(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"expected settings such as data_dir, found {entry!r}"
        return
    if unknown := [str(key) for key in entry if key not in _KEYS]:
        yield f"{', '.join(unknown)}: expected {', '.join(_KEYS)}"
    if not any(entry.get(key) for key in ("data_dir", "dataset_name", *_FILES)):
        yield "names no data_dir, dataset_name or train_file"
    for key in ("data_dir", *_FILES, "labels", *_READING):
        if not isinstance(entry.get(key, ""), str | int):
            yield f"{key} is {entry[key]!r}, expected a name"
    weight = entry.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        yield f"weight is {weight!r}, expected a positive number"
    types, rename = entry.get("types", []), entry.get("rename", {})
    if not isinstance(types, list) or not all(isinstance(one, str) for one in types) or types == [""]:
        yield f"types is {types!r}, expected a list of entity types"
    if not isinstance(rename, dict) or not all(isinstance(one, str) and one for pair in rename.items() for one in pair):
        yield f"rename is {rename!r}, expected a mapping of old to new names of types"


def _member(name: str, entry: dict[str, Any], home: Path, cache_dir: Path | None) -> Member:
    def located(key: str) -> Path | None:
        """A path of the file, which may be relative to its folder."""
        value = str(entry.get(key, ""))
        return None if not value else home / value if (home / value).exists() else Path(value)

    files = {split: file for key, split in _FILES.items() if (file := located(key))}
    reading: dict[str, Any] = {key: str(entry[key]) for key in _READING if key in entry}
    corpus = Corpus("", located("data_dir"), files, labels_file=located("labels"), cache_dir=cache_dir, **reading)
    types = tuple(entry["types"]) if "types" in entry else None
    rename = dict(entry.get("rename", {}))
    return Member(name, corpus, types, float(entry.get("weight", 1)), rename)
