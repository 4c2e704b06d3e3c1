"""CoNLL columns and character-per-line files: one word a line, blank lines between sentences."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from processors.examples import DataError, Example, Findings
from processors.tag_schemes import OUTSIDE, join_tag, split_tag

DOCUMENT_MARKS = ("-DOCSTART-", "DOCSTART")
_MARK_TAGS = frozenset({"O", "-X-"})
_EMPTY_COLUMNS = re.compile(r"\t[ \t]*\Z")
_DEFAULT_NAMES = {4: ["word", "pos", "chunk", "ner"], 3: ["word", "pos", "ner"], 2: ["word", "ner"]}


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file; a byte order mark and Windows line ends are taken off.

    Raises:
        DataError: the file is missing or a line is not UTF-8.
    """
    if not path.is_file():
        raise DataError("there is no such file", path)
    with path.open("rb") as file:
        for number, line in decoded_lines(file, path):
            yield number, line.rstrip("\r\n")


def decoded_lines(
    file: Iterable[bytes], source: str | Path, replace: bool = False, advice: str = ""
) -> Iterator[tuple[int, str]]:
    """Numbered lines of UTF-8 with their ends; only a byte order mark is taken off.

    Args:
        file: lines of bytes.
        source: its name in messages.
        replace: whether bytes that are not UTF-8 become U+FFFD.
        advice: what else to do about them, for the error.

    Raises:
        DataError: a line is not UTF-8.
    """
    for number, raw in enumerate(file, start=1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8", "replace" if replace else "strict")
        except UnicodeDecodeError as error:
            found = raw[error.start : error.start + 8].hex(" ")
            message = f"not UTF-8 (bytes {found} at column {error.start}); convert the file, e.g. with iconv -t UTF-8"
            raise DataError(f"{message}, {advice}" if advice else message, source, number) from error


def read_columns(
    path: Path,
    split: str,
    tag_column: str = "last",
    labelled: bool = True,
    plain_tags: bool = False,
    findings: Findings | None = None,
) -> Iterator[Example]:
    """Reads a file of tab- or space-separated columns, the word first.

    Args:
        path: the file.
        split: names the examples.
        tag_column: ``last``, a number (0 is the word, -1 the last), or one of word/pos/chunk/ner.
        labelled: whether a file without a tag column is an error; an unlabelled test file has words only.
        plain_tags: the tags are classes of single words: ``NN`` is read as the entity of one word ``S-NN``.
        findings: collects what is odd in the file.

    Raises:
        DataError: after the last line, with all lines that have a different number of columns than the first or an
            unreadable tag.
    """
    findings = Findings() if findings is None else findings
    columns = tag_index = 0
    words: list[str] = []
    labels: list[str] = []
    first_line, sentences = 1, 0

    def finished_example() -> Example:
        return Example(
            f"{split}-{sentences}", words, labels if columns > 1 else None, line=first_line, one_word_a_line=True
        )

    for number, line in read_lines(path):
        fields = _split_fields(line, columns, labelled)
        if not fields or (fields[0] in DOCUMENT_MARKS and _MARK_TAGS.issuperset(fields[1:])):
            if words:
                yield finished_example()
                words, labels, sentences = [], [], sentences + 1
            continue
        if not columns:
            if any("\r" in field for field in fields[1:]):
                raise DataError(
                    "lines end in a carriage return alone; convert them, e.g. with tr '\\r' '\\n'", path, number
                )
            columns = len(fields)
            if columns > 1:
                tag_index = _tag_index(tag_column, columns, path, number)
            elif labelled:
                raise DataError(
                    f"{line!r} has one column; expected a word and its tag, with a space or tab between them",
                    path,
                    number,
                )
        if len(fields) != columns:
            message = f"{len(fields)} columns in {line!r}, but the lines before have {columns}"
            findings.fault(DataError(f"{message}; separate word and tag by one space or tab", path, number))
            continue
        if not words:
            first_line = number
        words.append(fields[0])
        if columns > 1:
            tag = fields[tag_index]
            try:
                labels.append(checked_tag(tag, path, number, plain_tags))
            except DataError as error:
                findings.fault(error)
                labels.append(OUTSIDE)
    if words:
        yield finished_example()
    findings.raise_faults()


def tag_keys(tag_column: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Under which names records hold their tags: ``chunk`` or ``chunk_tags`` where ``tag_column`` is ``chunk``."""
    return usual if tag_column == "last" else (tag_column, f"{tag_column}_tags")


def checked_tag(tag: str, path: Path, line: int, plain_tags: bool = False) -> str:
    """The tag itself, if it is one, or that of a plain class; else an error with its place."""
    if plain_tags:
        return join_tag("S", tag)
    try:
        split_tag(tag)
    except ValueError as error:
        advice = "--tag_column names the column of the tags; parts of speech are learnt by run_pl_ner.py"
        raise DataError(f"{error}; {advice}", path, line) from None
    return tag


def _split_fields(line: str, columns: int, labelled: bool) -> list[str]:
    """Splits at tabs, else at runs of ASCII spaces; a full-width space is a word, and a lone space may be one."""
    if not line.strip(" \t"):
        return []
    if "\t" in line:
        word, *others = _EMPTY_COLUMNS.sub("", line).split("\t")
        return [word, *(field.strip(" ") for field in others)]
    fields = [field for field in line.split(" ") if field]
    alone = len(fields) == columns - 1 if columns else len(fields) == 1 and (labelled or _is_tag(fields[0]))
    return [" ", *fields] if alone and line.startswith(" ") else fields


def _is_tag(text: str) -> bool:
    try:
        split_tag(text)
    except ValueError:
        return False
    return True


def _tag_index(tag_column: str, columns: int, path: Path, line: int) -> int:
    if tag_column == "last":
        return columns - 1
    names = _DEFAULT_NAMES.get(columns, [])
    if tag_column in names:
        return names.index(tag_column)
    if tag_column.removeprefix("-").isdecimal() and -columns < int(tag_column) < columns:
        return int(tag_column) % columns
    known = ", ".join(["last", f"1 to {columns - 1}", *names[1:]])
    raise DataError(
        f"--tag_column {tag_column} does not fit lines of {columns} columns; use one of {known}", path, line
    )
