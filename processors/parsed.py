"""A split that was parsed: its counts, and its examples on disk, from which everything else is read afterwards."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.durable import atomic_write
from common.entities import Entity, outermost
from processors.examples import DataError, Example, Findings, join_words
from processors.formats.brat import brat_texts
from processors.spans import TagReader

FORMAT_VERSION = 10
_INVENTORY, _EXAMPLES, _HASHES = "inventory.json", "examples.jsonl", "sentences.txt"


@dataclass
class Inventory:
    """What one split holds, counted in one pass over its file.

    Args:
        source: the file or data set.
        unlabelled: sentences without annotation.
        unannotated_words: words of other sentences that are not annotated.
        complete_types: number of sentences that are annotated for some types only, for each of these.
        incomplete: number of all such sentences.
        entities: nested and overlapping ones included.
        nested_entities: those of them that overlap a longer one, so that flat tags cannot express them.
        types: number of entities of each type.
        type_lines: the line on which each type is first seen.
        scheme: the tag scheme found; empty where the source has no tags that begin and end entities.
        illegal_transitions: neighbouring tags that the scheme does not allow, read as ``conlleval`` reads them.
        cut_texts: sentences whose words are not given, but were cut from their text.
        continuations: sentences that continue the document of the sentence before.
        cut_by: how, as `processors.corpus.Corpus` describes it.
        findings: what else was odd in the annotations; the remarks are without the name of the source.
    """

    source: str
    sentences: int = 0
    unlabelled: int = 0
    unannotated_words: int = 0
    complete_types: dict[str, int] = field(default_factory=dict)
    incomplete: int = 0
    words: int = 0
    entities: int = 0
    nested_entities: int = 0
    types: dict[str, int] = field(default_factory=dict)
    type_lines: dict[str, int] = field(default_factory=dict)
    scheme: str = ""
    illegal_transitions: int = 0
    first_illegal_line: int = 0
    cut_texts: int = 0
    continuations: int = 0
    cut_by: str = ""
    findings: Findings = field(default_factory=Findings)

    def place(self, line: int) -> str:
        """A line of the source for messages; in a folder of brat's, the file of a text."""
        folder = Path(self.source)
        return str(brat_texts(folder)[line - 1].with_suffix(".ann")) if folder.is_dir() else f"{self.source}:{line}"

    def count(self, examples: Iterable[Example], tags: TagReader) -> Iterator[Example]:
        """Counts examples as they pass.

        Args:
            tags: reads the tags of these examples.

        Raises:
            DataError: there is no example, or its tags are of no scheme.
        """
        document = ""
        for example in examples:
            entities = example.entities or []
            self.continuations += bool(document) and example.document == document
            document = example.document
            self.sentences += 1
            self.unlabelled += example.entities is None
            if example.entities is not None:
                self.unannotated_words += sum(last + 1 - first for first, last in example.unannotated)
                self.incomplete += example.complete is not None
                for name in sorted(example.complete or ()):
                    self.complete_types[name] = self.complete_types.get(name, 0) + 1
            self.words += len(example.words)
            self.cut_texts += not example.words_given
            self.entities += len(entities)
            self.nested_entities += len(entities) - len(outermost(entities))
            for entity in entities:
                self.types[entity.type] = self.types.get(entity.type, 0) + 1
                self.type_lines.setdefault(entity.type, example.line_of(entity.first_word))
            yield example
        if not self.sentences:
            raise DataError("no sentence in this file; is it the right one, and not empty?", self.source)
        if scheme := tags.scheme(self.source):
            self.scheme = scheme.name
            self.illegal_transitions, self.first_illegal_line = tags.illegal(scheme)
        remarks = self.findings.remarks
        remarks[:] = [remark.removeprefix(self.source) for remark in remarks]


def write_parsed(folder: Path, examples: Iterable[Example], inventory: Inventory) -> None:
    """Writes the examples of a split into a new folder, and what ``inventory`` counts meanwhile."""
    with atomic_write(folder, "keep") as fresh:  # another process may be faster
        fresh.mkdir()
        with (
            (fresh / _EXAMPLES).open("w", encoding="utf-8") as file,
            (fresh / _HASHES).open("w", encoding="utf-8") as hashes,
        ):
            for example in examples:
                file.write(json.dumps(_record(example), ensure_ascii=False, separators=(",", ":")) + "\n")
                if example.words:
                    hashes.write(f"{sentence_hash(example.words)}\n")
        (fresh / _INVENTORY).write_text(json.dumps(asdict(inventory)), "utf-8")


def read_inventory(folder: Path, source: str) -> Inventory | None:
    """What was counted in a parsed split; ``None`` where there is none.

    Args:
        source: the name that the split has now.
    """
    path = folder / _INVENTORY
    if not path.is_file():
        return None
    kept = json.loads(path.read_text("utf-8"))
    return Inventory(**{**kept, "source": source, "findings": Findings(**kept["findings"])})


def read_examples(folder: Path) -> Iterator[Example]:
    """The examples of a parsed split, in order, without their lines."""
    with (folder / _EXAMPLES).open(encoding="utf-8") as file:
        for line in file:
            guid, words, entities, text, offsets, unannotated, complete, *others = json.loads(line)
            confidences, words_given, document = others
            yield Example(
                guid,
                words,
                None if entities is None else [Entity(*entity) for entity in entities],
                text,
                None if offsets is None else [(start, end) for start, end in offsets],
                unannotated=[(first, last) for first, last in unannotated],
                confidences=confidences,
                words_given=words_given,
                document=document,
                complete=None if complete is None else frozenset(complete),
            )


def read_hashes(folder: Path) -> list[str]:
    """A hash of the words of each sentence that has any."""
    return (folder / _HASHES).read_text("utf-8").split()


def sentence_hash(words: list[str]) -> str:
    return hashlib.blake2b("\n".join(words).encode(), digest_size=8).hexdigest()


def _record(example: Example) -> list[object]:
    text, offsets = example.text, example.offsets
    if (text, offsets) == join_words(example.words):  # which `Example` does by itself
        text = offsets = None
    complete = None if example.complete is None else sorted(example.complete)
    others = (example.unannotated, complete, example.confidences, example.words_given, example.document)
    return [example.guid, example.words, example.entities, text, offsets, *others]
