"""Dictionaries of entities (gazetteers): files, longest matches in texts, and dictionaries made from a corpus."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from common.durable import atomic_write
from processors.examples import DataError, Example, Findings, has_wide
from processors.formats.text_lines import read_lines
from processors.text.word_cutting import WordCutter

_PLAIN = re.compile(r"[^\W_]+(?: [^\W_]+)*")  # cut alike by spaces and by any cutter
_PREFIX = frozenset[str]()  # types of what only begins entries
_BREAKS = re.compile(r"[\t\n\r]")


class Match(NamedTuple):
    """An entry found in a text, ``first_word`` to ``last_word`` (inclusive)."""

    first_word: int
    last_word: int
    types: frozenset[str]


@dataclass
class Gazetteer:
    """Surfaces and their types, found in texts by their words.

    Texts come with their words, so an entry is cut in several ways: by spaces, by ``word_unit``, and into tokens.

    Args:
        ignore_case: whether upper and lower case are the same.
        word_unit: how texts were cut into words; see `processors.text.word_cutting.WordCutter`.
    """

    ignore_case: bool = False
    word_unit: str = "auto"
    _entries: dict[str, frozenset[str]] = field(default_factory=dict)  # by words
    _type_sets: dict[frozenset[str], frozenset[str]] = field(default_factory=dict)

    def add(self, surface: str, types: Iterable[str]) -> None:
        """Add an entry with at least one type, or types to an entry."""
        entries = self._entries
        for words in self._ways_to_cut(surface):
            key = ""
            for word in words:
                key = f"{key}\t{word}" if key else word
                if key not in entries:
                    entries[key] = _PREFIX
            found = entries[key].union(types)
            entries[key] = self._type_sets.setdefault(found, found)  # one object for all entries: a third of the memory

    def _ways_to_cut(self, surface: str) -> set[tuple[str, ...]]:
        surface = self.folded(surface)
        ways = {tuple(surface.split())}
        if has_wide(surface) or not _PLAIN.fullmatch(surface):
            for unit in {self.word_unit, "token"}:
                words = WordCutter(unit).split(surface)[0]
                ways.add(tuple(word for word in words if not word.isspace()))
        return ways

    def folded(self, text: str) -> str:
        """The text as it is compared."""
        return text.casefold() if self.ignore_case else text

    def matches(self, words: Sequence[str]) -> Iterator[Match]:
        """Find the longest entries from left to right, none of which overlap."""
        entries, folded = self._entries, [self.folded(word) for word in words]
        place = 0
        while place < len(folded):
            key, found = folded[place], None
            for last in range(place, len(folded)):
                if last > place:
                    key = f"{key}\t{folded[last]}"
                types = entries.get(key)
                if types is None:
                    break
                if types:
                    found = Match(place, last, types)
            if found:
                yield found
            place = found.last_word + 1 if found else place + 1

    @property
    def types(self) -> frozenset[str]:
        """All types."""
        return _PREFIX.union(*self._type_sets)


def read_gazetteer(path: Path, ignore_case: bool = False, word_unit: str = "auto") -> Gazetteer:
    """Read lines ``surface<tab>TYPE``; more columns, as `make_gazetteer` writes them, and empty lines are ignored.

    Raises:
        DataError: with all lines that have no surface or no type.
    """
    gazetteer, findings = Gazetteer(ignore_case, word_unit), Findings()
    for number, line in tqdm(read_lines(path), desc=path.name, unit=" lines", leave=False, disable=None):
        surface, *columns = line.split("\t")
        if columns and surface.strip() and columns[0].strip():
            gazetteer.add(surface, [columns[0].strip()])
        elif line.strip():
            findings.fault(DataError(f"expected SURFACE<tab>TYPE, found {line[:80]!r}", path, number))
    findings.raise_faults()
    return gazetteer


def make_gazetteer(examples: Sequence[Example], ignore_case: bool = False) -> list[tuple[str, str, float]]:
    """Make the dictionary of the entities of annotated texts.

    Returns:
        The surface, as often as it is written differently, the type, and the share of its matches in the texts that are
        entities of this type; 0 if it is nowhere the longest match.
    """
    written: dict[tuple[str, ...], Counter[tuple[str, str]]] = {}
    gazetteer = Gazetteer(ignore_case)
    for example in examples:
        for entity in example.entities or ():
            start, end = example.place(entity)
            surface = _BREAKS.sub(" ", (example.text or "")[start:end])
            key = tuple(gazetteer.folded(word) for word in example.words[entity.first_word : entity.last_word + 1])
            written.setdefault(key, Counter())[surface, entity.type] += 1
            gazetteer.add(surface, [entity.type])
    found: Counter[tuple[str, ...]] = Counter()
    right: Counter[tuple[tuple[str, ...], str]] = Counter()
    for example in examples:
        entities = {entity[1:]: entity.type for entity in example.entities or ()}
        unknown = {word for first, last in example.unannotated for word in range(first, last + 1)}
        for first, last, _ in gazetteer.matches(example.words):
            if example.entities is None or unknown.intersection(range(first, last + 1)):
                continue
            key = tuple(map(gazetteer.folded, example.words[first : last + 1]))
            found[key] += 1
            if (first, last) in entities:
                right[key, entities[first, last]] += 1
    return sorted(
        (surface, kind, right[key, kind] / max(found[key], 1))
        for key, ways in written.items()
        for surface, kind in ways
    )


def write_gazetteer(entries: Iterable[tuple[str, str, float]], path: Path) -> None:
    """Write lines ``surface<tab>TYPE<tab>share``."""
    with atomic_write(path) as complete, complete.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{surface}\t{kind}\t{share:.4f}\n" for surface, kind, share in entries)
