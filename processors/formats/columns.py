"""Column files, such as CoNLL: detection of their layout in a first pass, and reading of their sentences."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import ne
from pathlib import Path

from common.tag_dialects import Dialect, UnknownTagsError, canonical_tags
from common.tag_schemes import UNKNOWN, is_tag, split_tag, tags_to_entities
from processors.examples import DataError, Example
from processors.formats.text_lines import read_lines
from processors.spans import Reading

CHUNK_TYPES = ("ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP")
DOCUMENT, COMMENT, HEADER = "document marks", "comment lines", "header rows"
_DEFAULT_NAMES = {
    10: ["id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"],
    4: ["word", "pos", "chunk", "ner"],
    3: ["word", "pos", "ner"],
    2: ["word", "ner"],
}
_WORD_NAMES = frozenset({"word", "words", "token", "tokens", "form", "text"})
_TAG_NAMES = frozenset({"tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "entity", "iob", "bio"})
_MARK = re.compile(r"--?DOCSTART--?", re.IGNORECASE)
_MARK_FIELDS = frozenset({"O", "0", "-X-", "-1-", "-", "_", "DOCSTART"})
_ENTITY_TAG = re.compile(r"[BIMELSU]-.+")
_CONLLU_NUMBERS = re.compile(r"\d+(?:(-)|\.)\d+")
_NO_LABEL = frozenset({"_", "-", "?", "*"})
_TRAILING_COLUMNS = re.compile(r"\t[ \t]*\Z")
_MOST_BARE_TYPES = 200
_OTHER_FORMATS = {
    r".*\|\|\|": "CMeEE's text|||start end type|||",
    r"\S*/[A-Za-z]{1,4}(\s+\S*/[A-Za-z]{1,4})*\s*\Z": "words with tags behind a slash, as in word/nt word/o",
    r"\s*<[?!/\w]": "XML or HTML",
    r'\s*[\[{]\s*"': "JSON",
    r"[^\t,]+(,[^\t]*)+\Z": "CSV; separate the columns by tabs instead, and the sentences by blank lines",
    r"\S+(\s+\S+){9}|\S{30}": "running text",
}


@dataclass
class _Layout:
    """Which columns hold words and tags, and what one pass over the lines found.

    Args:
        first: number of the first line with a word.
        columns: number of columns of this line; 0 in a file without words.
        values: distinct values of each column, with the first line of each.
        ragged: number of lines with another number of columns.
        hashes: lines that begin with ``#``: line number, fields, whether at the start of a sentence.
        other_lines: kinds of the lines without a word, by line number.
        names: column names of the header row.
        has_index: whether the first column counts 1, 2, ... (or from 0) in every sentence.
        word: index of the word column, from 0.
        tag: index of the tag column; ``None`` in an unlabelled file.
        dialect: canonical form of each tag; ``None`` if there are no tags or they are classes of single words.
        levels: further tag columns, whose entities are read too, with their dialects.
        rivals: other columns with entity tags, if none was asked for.
    """

    first: int = 0
    columns: int = 0
    values: list[dict[str, int]] = field(default_factory=list)
    ragged: int = 0
    hashes: list[tuple[int, list[str], bool]] = field(default_factory=list)
    other_lines: dict[int, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    has_index: bool = False
    word: int = 0
    tag: int | None = None
    dialect: Dialect | None = None
    levels: dict[int, Dialect] = field(default_factory=dict)
    rivals: list[int] = field(default_factory=list)


def _layout_of(path: Path, reading: Reading) -> _Layout:
    """Detect the layout of a file in one pass.

    Raises:
        DataError: the file is not in columns, has no tag column, or has unknown tags.
    """
    labelled, plain_tags = reading.labelled, reading.tags.plain
    tag_column, *further = reading.tag_column.split(",")
    layout = _scan(path, labelled)
    columns, values, names, first = layout.columns, layout.values, layout.names, layout.first
    if not columns:
        return layout
    if layout.ragged > max(map(len, values)):
        _refuse_other_formats(path, first)
    has_index = layout.has_index and (columns > 2 or not (labelled or all(map(is_tag, values[1]))))
    if not names:
        names = _DEFAULT_NAMES.get(columns - (has_index and columns != 10), [])
        names = ["index", *names] if has_index and len(names) < columns else names

    def position(flag: str, value: str, known: list[str]) -> int:
        """Index of the column given by a flag as a name or number; negative numbers count from the end."""
        if value.lower() in names:
            return names.index(value.lower())
        if value.removeprefix("-").isdecimal() and -columns < int(value) < columns:
            return int(value) % columns
        message = f"{flag} {value} does not fit lines of {columns} columns; use one of {', '.join(known)}"
        raise DataError(message, path, first)

    word = next((i for i, name in enumerate(layout.names) if name in _WORD_NAMES), int(has_index))
    if reading.word_column:
        word = position("--word_column", reading.word_column, [f"0 to {columns - 1}", *names])

    def tag_position(name: str) -> int:
        found = columns - 1 if name == "last" else position("--tag_column", name, known)
        if found == word or (has_index and found == 0):
            what = "words" if found == word else "numbers of the words"
            raise DataError(f"--tag_column {name} is the column of the {what}; name another", path, first)
        return found

    tag, levels = None, list[int]()
    if columns - has_index > 1:
        known = ["last", f"1 to {columns - 1}", *names[1:]]
        tag, *levels = map(tag_position, (tag_column, *further))
        if not labelled and len(values[tag]) == 1 and _NO_LABEL.issuperset(values[tag]):
            tag = None
    elif labelled:
        _refuse_other_formats(path, first)
        line = next(line for number, line in read_lines(path) if number == first)
        message = f"{line!r} has one column; expected a word and its tag, with a space or tab between them"
        raise DataError(message, path, first)
    if levels and plain_tags:
        raise DataError(f"--tag_column {reading.tag_column}: classes of words are read from one column", path, first)
    layout.has_index, layout.word, layout.tag = has_index, word, tag
    comments = _comments(layout, plain_tags)
    for number, fields, _ in layout.hashes:
        if number not in comments and len(fields) == columns:
            _collect(values, fields, number)
    layout.other_lines |= dict.fromkeys(comments, COMMENT)
    if tag is not None and not plain_tags:
        others = set(range(has_index, columns)) - {word, tag, *levels}
        rivals = [column for column in sorted(others) if _holds_entities(values[column])]
        layout.dialect = _dialect(values[tag], rivals, path)
        layout.levels = {column: _dialect(values[column], [], path) for column in levels}
        layout.rivals = rivals if tag_column == "last" else []
    return layout


def split_fields(line: str, columns: int, labelled: bool) -> list[str]:
    """Split at tabs, else at runs of ASCII spaces; a full-width space is a word, and a single space may be one."""
    if not line.strip(" \t"):
        return []
    if "\t" in line:
        word, *others = _TRAILING_COLUMNS.sub("", line).split("\t")
        return [word, *(field.strip(" ") for field in others)]
    fields = [field for field in line.split(" ") if field]
    alone = len(fields) == columns - 1 if columns else len(fields) == 1 and (labelled or is_tag(fields[0]))
    return [" ", *fields] if alone and line.startswith(" ") else fields


def is_document_mark(fields: Sequence[str]) -> bool:
    """Whether a line marks a document boundary.

    This is ``-DOCSTART- -X- O O``, with or without an index, ``DOCSTART``, or ``#begin document (...)``.
    """
    name, *others = fields[1:] if len(fields) > 1 and fields[0] in ("0", "1") else fields
    if name[:1] not in ("-", "D", "#"):
        return False
    if name == "DOCSTART":
        return _MARK_FIELDS.issuperset(others)
    if name in ("#begin", "#end"):
        return others[:1] == ["document"]
    return _MARK.fullmatch(name) is not None and not any(map(_ENTITY_TAG.fullmatch, others))


def _scan(path: Path, labelled: bool) -> _Layout:
    scan = _Layout()
    at_start, position, longest, counts = True, 0, 0, True
    numbered: list[tuple[int, list[str]]] = []
    for number, line in read_lines(path):
        fields = split_fields(line, scan.columns, labelled)
        if not fields:
            at_start = True
            continue
        if is_document_mark(fields):
            scan.other_lines[number] = DOCUMENT
            at_start = True
            continue
        if line.startswith("#"):
            scan.hashes.append((number, fields, at_start))
            continue
        if not scan.columns:
            if any("\r" in field for field in fields[1:]):
                message = "lines end in a carriage return alone; convert them, e.g. with tr '\\r' '\\n'"
                raise DataError(message, path, number)
            scan.first, scan.columns, scan.values = number, len(fields), [{} for _ in fields]
            lowered = [name.lower() for name in fields]
            if not _WORD_NAMES.isdisjoint(lowered) and not _TAG_NAMES.isdisjoint(lowered):
                scan.names = lowered
                scan.other_lines[number] = HEADER
                continue
        if len(fields) != scan.columns:
            scan.ragged += 1
        elif numbers := _CONLLU_NUMBERS.fullmatch(fields[0]):
            numbered.append((number, fields))
            scan.other_lines[number] = "ranges of words such as 1-2" if numbers[1] else "empty nodes such as 8.1"
            continue
        else:
            if counts:
                position = int(fields[0] != "0") if at_start else position + 1
                counts = fields[0] == str(position)
                longest = max(longest, position)
            _collect(scan.values, fields, number)
        at_start = False
    scan.has_index = counts and longest > 1
    if not scan.has_index:  # then 1-2 and 8.1 are words
        for number, fields in numbered:
            del scan.other_lines[number]
            _collect(scan.values, fields, number)
    if not scan.columns and scan.hashes:
        scan.first, fields, _ = scan.hashes[0]
        scan.columns, scan.values = len(fields), [{} for _ in fields]
    return scan


def _collect(values: list[dict[str, int]], fields: list[str], number: int) -> None:
    for seen, value in zip(values, fields, strict=True):
        seen.setdefault(value, number)


def _comments(layout: _Layout, plain_tags: bool) -> set[int]:
    """Numbers of the comment lines: lines at the start of a sentence that cannot be a word with its tag.

    If a file has such lines, ``# key = value`` is a comment too, even if it could be a word with its tag.
    """

    def fits(fields: list[str]) -> bool:
        if layout.has_index or len(fields) != layout.columns:
            return False
        tag = layout.tag
        return tag is None or plain_tags or fields[tag] in layout.values[tag] or is_tag(fields[tag])

    candidates = [(number, fields) for number, fields, at_start in layout.hashes if at_start or layout.has_index]
    comments = {number for number, fields in candidates if not fits(fields)}
    if comments:
        comments |= {number for number, fields in candidates if "=" in fields[1:3]}
    return comments


def _holds_entities(values: dict[str, int]) -> bool:
    """Whether a column contains entity tags, not chunk tags."""
    if not all(map(is_tag, values)):
        return False
    types = {split_tag(tag)[1] for tag in values} - {""}
    return bool(types) and not types.issubset(CHUNK_TYPES)


def _dialect(tags: dict[str, int], rivals: list[int], path: Path) -> Dialect:
    """Dialect of tags, given with the first line of each."""
    try:
        dialect = canonical_tags(tags.keys() - {UNKNOWN})
        bare = [tag for tag, usual in dialect.tags.items() if usual == f"I-{tag}"]
        if len(bare) > _MOST_BARE_TYPES:
            raise UnknownTagsError(bare, f"are not tags: {len(bare)} values are too many for types of entities")
    except UnknownTagsError as error:
        lines = sorted(tags[tag] for tag in error.tags)
        _refuse_other_formats(path, lines[0])
        message = str(error)
        if len(lines) > 1:
            message += f"; first on lines {', '.join(map(str, lines[:10]))}"
        advice = "set --tag_column to the column of the tags; run_pl_ner.py trains on parts of speech"
        if rivals:
            advice = f"tags are in column {rivals[0]}: --tag_column {rivals[0]} reads them"
        raise DataError(f"{message}; {advice}", path, lines[0]) from None
    dialect.tags[UNKNOWN] = UNKNOWN
    return dialect


def _refuse_other_formats(path: Path, first: int) -> None:
    """Raise a DataError if the lines of an unreadable file look like another format."""
    lines = list(islice((line for _, line in read_lines(path) if line.strip() and not line.startswith("#")), 20))
    for pattern, name in _OTHER_FORMATS.items():
        if 2 * sum(re.match(pattern, line) is not None for line in lines) > len(lines):
            raise DataError(f"this file is not in columns, it looks like {name}", path, first)


_LONG_SENTENCE = 2000


def read_columns(path: Path, reading: Reading) -> Iterator[Example]:
    """Read a file of tab- or space-separated columns; an unlabelled test file has only words.

    Raises:
        DataError: the file is not in columns or its tags are unknown; after the last line, all lines with another
            number of columns than the first.
    """
    findings = reading.findings
    layout = _layout_of(path, reading)
    counts: Counter[str] = Counter()
    entities: Counter[int] = Counter()  # number of entities per tag column
    sentences = words_read = 0
    for document, rows in _sentences(path, layout, reading):
        words = [fields[layout.word] for _, fields in rows]
        lines = [number for number, _ in rows]
        guid = f"{reading.split}-{sentences}"
        example = Example(guid, words, line=lines[0], word_lines=lines, document=document)
        if layout.tag is not None:
            written = [fields[layout.tag] for _, fields in rows]
            usual = [layout.dialect.tags[tag] for tag in written] if layout.dialect else written
            counts[layout.dialect.description if layout.dialect else ""] += sum(map(ne, written, usual))
            levels = [usual]
            for column, dialect in layout.levels.items():
                levels.append([dialect.tags[fields[column]] for _, fields in rows])
            reading.tags.annotate(example, levels, lines)
        counts["empty words, kept"] += words.count("")
        entities[-1] += len(example.entities or ())
        for column in layout.rivals:
            entities[column] += len(tags_to_entities([fields[column] for _, fields in rows]))
        yield example
        sentences, words_read = sentences + 1, words_read + len(words)
    findings.raise_faults()
    if layout.has_index and not reading.word_column:
        counts["words read from column 1: column 0 numbers them (set --word_column for another)"] = words_read
    if sentences == 1 and words_read > _LONG_SENTENCE:
        counts["words in a single sentence: are the blank lines between sentences missing?"] = words_read
    for column in layout.rivals:
        kind = f"entities in column {column} are not read: the last column is used, with {entities[-1]}"
        counts[f"{kind}; use --tag_column {column} to read them"] = entities[column]
    for kind, count in counts.items():
        findings.add(kind, count=count)


def _sentences(path: Path, layout: _Layout, reading: Reading) -> Iterator[tuple[str, list[tuple[int, list[str]]]]]:
    """Yield the document of each sentence, empty before the first mark, and its words as line numbers and fields."""
    rows: list[tuple[int, list[str]]] = []
    document = ""
    findings = reading.findings
    for number, line in read_lines(path, findings):
        kind = layout.other_lines.get(number, "")
        fields = [] if kind else split_fields(line, layout.columns, reading.labelled)
        if fields and len(fields) != layout.columns:
            message = f"{len(fields)} columns in {line!r}, but the lines before have {layout.columns}"
            findings.fault(DataError(f"{message}; separate word and tag by one space or tab", path, number))
        elif fields:
            rows.append((number, fields))
        elif rows and kind in ("", DOCUMENT):
            yield document, rows
            rows = []
        if kind == DOCUMENT or (kind == COMMENT and line.startswith("# newdoc")):  # the latter in CoNLL-U
            document = f"{reading.split}-line-{number}"
        if kind and kind != DOCUMENT:
            known = f"{kind}, left out" in findings.counts
            findings.add(f"{kind}, left out", "" if known else f"{path}:{number}: {line!r} is the first of the {kind}")
    if rows:
        yield document, rows
