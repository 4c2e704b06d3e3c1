"""Layers: what several sources say of the same texts, in one file or in a file for each source."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.entities import Annotation, Entity, in_text_order, ranges_of
from processors.corpus import READERS
from processors.examples import DataError, Example, Findings
from processors.formats.json_files import read_records
from processors.formats.label_studio import guid_of
from processors.formats.line_formats import detect_format
from processors.formats.records import TEXT_KEYS, WORD_KEYS, RecordReader
from processors.spans import Reading, Source

SOURCES = "sources"
_Layers = dict[str, Annotation]


@dataclass
class LayeredText:
    """A text with its gold annotation, if it has one, and what each source that looked at it says."""

    example: Example
    layers: _Layers = field(default_factory=dict)


def read_layers(files: Sequence[str], reading: Reading) -> tuple[list[LayeredText], Findings]:
    """Read texts with layers, and put together what several files say of the same text.

    Texts are the same if all their characters are; of those that a file repeats, the first belongs to the first of
    another file. Their words are those of the first file that gives words.

    Args:
        files: JSON records with ``sources``, or gold annotation in any format; ``NAME=FILE`` is one source.
        reading: how files are read, with a copy of its findings for each file.

    Raises:
        DataError: with the faults of all files.
    """
    texts: dict[tuple[str, int], LayeredText] = {}
    findings = Findings()
    for file in files:
        name, path = _named(file)
        one = replace(reading, split=path.stem, labelled=False, findings=Findings())
        seen: Counter[str] = Counter()
        try:
            for found in tqdm(_read(path, name, one), desc=path.name, unit=" texts", leave=False, disable=None):
                text = found.example.text or ""
                known = texts.setdefault((text, seen[text]), found)
                seen[text] += 1
                if known is not found:
                    _join(known, found, Source(path, found.example.line, found.example.guid), one.findings)
        except DataError as error:  # of a reader, with all faults of the file
            findings.fault(error)
        findings.faults += one.findings.faults
        for kind, count in one.findings.counts.items():
            findings.add(kind, count=count)
        findings.remarks += one.findings.remarks
    findings.raise_faults()
    return list(texts.values()), findings


def _named(file: str) -> tuple[str, Path]:
    name, equals, path = file.partition("=")
    return (name, Path(path)) if equals and not Path(file).exists() else ("", Path(file))


def _read(path: Path, name: str, reading: Reading) -> Iterator[LayeredText]:
    if not path.exists():
        raise DataError("there is no such file", path)
    kind = detect_format(path)
    if name or kind != "json":
        for example in READERS[kind](path, reading):
            layers = {name: example.annotation} if name and example.entities is not None else {}
            yield LayeredText(_without_annotation(example) if name else example, layers)
        return
    for index, (line, record) in enumerate(read_records(path, reading.findings)):
        try:
            if not isinstance(record, dict):
                raise DataError(f"expected a JSON object, found {type(record).__name__}", path, line)
            yield from _texts_of(record, Source(path, line, guid_of(record, f"{reading.split}-{index}")), reading)
        except DataError as error:
            reading.findings.fault(error)


def _texts_of(record: dict[str, Any], source: Source, reading: Reading) -> Iterator[LayeredText]:
    layers = record.get(SOURCES) or {}
    if not isinstance(layers, dict):
        raise source.error(f'{SOURCES} is {layers!r:.100}; expected {{"name": [spans]}}')
    reader = RecordReader(reading)
    examples = reader.read({key: value for key, value in record.items() if key != SOURCES}, source)
    if layers and len(examples) > 1:
        raise source.error(f"{SOURCES} of a document of several sentences; write a record for each sentence")
    for example in examples:
        text = LayeredText(example)
        units = {key: record[key] for key in (*TEXT_KEYS, *WORD_KEYS) if key in record}
        for name, value in layers.items():
            if value is not None:
                said = value if isinstance(value, dict) and "spans" in value else {"spans": value}
                place = replace(source, guid=f"{source.guid}: {name}")
                text.layers[name] = reader.read(units | said, place)[0].annotation
        yield text


def _without_annotation(example: Example) -> Example:
    return replace(example, entities=None, unannotated=[], complete=None, confidences=None)


def _join(known: LayeredText, found: LayeredText, source: Source, findings: Findings) -> None:
    """Add what another file says of a text."""
    if found.example.words_given and not known.example.words_given:
        here = LayeredText(known.example, known.layers)
        document = here.example.document or found.example.document
        known.example = replace(_without_annotation(found.example), guid=here.example.guid, document=document)
        known.layers = {}
        _join(known, here, source, findings)
    for name, annotation in found.layers.items():
        if name in known.layers:
            findings.fault(source.error(f"the source {name} has annotated this text before"))
        known.layers[name] = _on_words_of(known.example, found.example, annotation, findings)
    if found.example.entities is None:
        return
    gold = _on_words_of(known.example, found.example, found.example.annotation, findings)
    mine = known.example.annotation
    if known.example.entities is not None and replace(mine, entities=in_text_order(mine.entities or ())) != gold:
        advice = "name the files as sources, NAME=FILE"
        findings.fault(source.error(f"this text has another annotation in an earlier file; {advice}"))
    known.example.entities, known.example.complete = list(gold.entities or ()), gold.complete
    known.example.unannotated = list(gold.unannotated)


def _on_words_of(example: Example, other: Example, annotation: Annotation, findings: Findings) -> Annotation:
    """Move an annotation to the words of an example with the same text; entities are widened to whole words."""
    if example.offsets == other.offsets:
        return replace(annotation, entities=in_text_order(annotation.entities or ()))
    mine, theirs = example.offsets or [], other.offsets or []
    starts, ends = [start for start, _ in mine], [end for _, end in mine]

    def touched(first: int, last: int) -> tuple[int, int]:
        return bisect_right(ends, theirs[first][0]), bisect_left(starts, theirs[last][1]) - 1

    entities = []
    for entity in annotation.entities or ():
        first, last = touched(*entity[1:])
        if first > last:
            findings.add("entities without a word of the other file, left out")
            continue
        cut = (starts[first], ends[last]) != (theirs[entity.first_word][0], theirs[entity.last_word][1])
        findings.add("entities that begin or end inside a word of the other file, widened", count=int(cut))
        entities.append(Entity(entity.type, first, last))
    words = (
        word
        for first, last in (touched(*region) for region in annotation.unannotated)
        for word in range(first, last + 1)
    )
    return Annotation(len(mine), in_text_order(entities), ranges_of(sorted(set(words))), annotation.complete)
