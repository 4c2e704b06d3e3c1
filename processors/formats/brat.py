"""Reading and writing brat folders: texts (``.txt``) with annotation files of the same name (``.ann``)."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from common.durable import atomic_write
from processors.examples import DataError, Example, Findings, without_lone_surrogates
from processors.formats.text_lines import decoded_text, read_lines
from processors.spans import Reading, Source, Span

_KINDS = {
    "R": "relations",
    "*": "equivalences",
    "E": "events",
    "A": "attributes",
    "M": "attributes",
    "N": "normalisations",
    "#": "notes",
}
_FRAGMENTS = re.compile(r"(\S+) (\d+ \d+(?:;\d+ \d+)*)")
_NOT_IN_A_FILE_NAME = re.compile(r"[^\w.-]+")


def brat_files(folder: Path) -> list[Path]:
    """All texts and annotation files, including sub-folders, sorted by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".txt", ".ann") and path.is_file())


def brat_texts(folder: Path) -> list[Path]:
    """All texts, sorted by name; the ``line`` of an example is the number of its text in this list, from 1."""
    return [path for path in brat_files(folder) if path.suffix == ".txt"]


def read_brat(folder: Path, reading: Reading) -> Iterator[Example]:
    """Read each text as one example, named by its path in the folder.

    Windows line ends count as two characters, as in brat, unless the annotations show otherwise.

    Raises:
        DataError: after the last text, with all missing annotation files of labelled texts, annotation files without
            text, and malformed lines.
    """
    texts = brat_texts(folder)
    for path in sorted({path.with_suffix(".txt") for path in brat_files(folder)} - set(texts)):
        reading.findings.fault(DataError(f"there is no text {path.name} next to it", path.with_suffix(".ann")))

    def example_of(number: int, path: Path) -> Iterator[Example]:
        annotations = path.with_suffix(".ann")
        source = Source(annotations, 1, path.relative_to(folder).with_suffix("").as_posix())
        text = decoded_text(path.read_bytes(), path, reading.findings)
        if not annotations.is_file() and reading.labelled:
            advice = "an empty file means that the text has no entity"
            raise DataError(f"there is no {annotations.name} next to it; {advice}", path)
        spans = list(_read_spans(text, source, reading.findings)) if annotations.is_file() else None
        example = reading.example(text, spans, source)
        example.line = number
        yield example

    return reading.examples_of(enumerate(texts, start=1), example_of)


def _read_spans(text: str, source: Source, findings: Findings) -> Iterator[Span]:
    for number, line in read_lines(source.path):
        if not line.strip():
            continue
        try:
            if line.startswith("T"):
                yield from _span(line, number, text, source, findings)
            else:
                findings.add(f"{_kind(line, source, number)}, not used")
        except DataError as error:
            findings.fault(error)


def _span(line: str, number: int, text: str, source: Source, findings: Findings) -> Iterator[Span]:
    """Yield the span of a text-bound annotation; none if it is discontinuous."""
    name, _, rest = line.partition("\t")
    place, _, surface = rest.partition("\t")
    found = _FRAGMENTS.fullmatch(place.rstrip())
    if not found:
        raise DataError(f"cannot read {line!r}; expected T1<tab>TYPE START END<tab>TEXT", source.path, number)
    fragments = sorted((int(start), int(end)) for start, end in map(str.split, found[2].split(";")))
    gaps = [text[end:start] for (_, end), (start, _) in pairwise(fragments)]
    if any(gap.strip() for gap in gaps):
        place = f"{source.path}:{number}: {source.guid}"
        findings.add("discontinuous entities, left out", f"{place}: {name} {found[1]} {surface!r}")
    else:
        yield Span(found[1], fragments[0][0], fragments[-1][1], surface or None, number)


def _kind(line: str, source: Source, number: int) -> str:
    if line[0] not in _KINDS or "\t" not in line:
        raise DataError(f"cannot read {line!r}; is it a line of a brat file?", source.path, number)
    return _KINDS[line[0]]


def write_brat(examples: Iterable[Example], folder: Path, more_types: Iterable[str] = ()) -> Findings:
    """Write texts, annotations, and an ``annotation.conf`` with the types to a new folder.

    Files are named by number and example name, to keep the order.

    Args:
        more_types: types that annotators may use although no example has them.

    Raises:
        DataError: some types are empty or contain white space, which brat does not allow; nothing is written.
    """
    findings = Findings()
    types = set(more_types)
    with atomic_write(folder, sync=False) as aside:
        aside.mkdir()
        for number, example in enumerate(examples):
            stem = aside / f"{number:06d}-{_NOT_IN_A_FILE_NAME.sub('_', example.guid)[:100]}"
            stem.with_name(f"{stem.name}.txt").write_bytes(findings.mended(example.text or "").encode())
            if example.entities is not None:
                lines = list(_lines(example, findings))
                types |= {entity.type for entity in example.entities}
                content = "".join(f"{line}\n" for line in lines)
                stem.with_name(f"{stem.name}.ann").write_bytes(without_lone_surrogates(content)[0].encode())
        check_brat_types(types)
        sections = ["[entities]", *sorted(types), "[relations]", "[events]", "[attributes]"]
        (aside / "annotation.conf").write_text("\n".join(sections) + "\n", "utf-8")
    return findings


def check_brat_types(types: Iterable[str]) -> None:
    """Raise a DataError with all types that brat does not allow."""
    wrong = sorted({kind for kind in types if not kind or any(map(str.isspace, kind))})
    if wrong:
        names = ", ".join(map(repr, wrong))
        raise DataError(f"brat cannot write types that are empty or contain white space: {names}; rename them")


def _lines(example: Example, findings: Findings) -> Iterator[str]:
    text = example.text or ""
    for number, entity in enumerate(example.entities or (), start=1):
        start, end = example.place(entity)
        # An annotation is one line, so an entity over several lines becomes one fragment per line.
        fragments = [(start + m.start(), start + m.end()) for m in re.finditer(r"[^\n]+", text[start:end])]
        if not fragments or (fragments[0][0], fragments[-1][1]) != (start, end):
            findings.add("line breaks at the edge of an entity, which brat cannot mark")
        if fragments:
            places = ";".join(f"{left} {right}" for left, right in fragments)
            yield f"T{number}\t{entity.type} {places}\t{' '.join(text[left:right] for left, right in fragments)}"
