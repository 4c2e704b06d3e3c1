"""CoNLL columns and character-per-line files: one word a line, blank lines between sentences."""

from collections import Counter
from collections.abc import Iterator
from operator import ne
from pathlib import Path

from processors.column_layout import DOCUMENT, ColumnLayout, column_layout, split_fields
from processors.examples import DataError, Example, Findings
from processors.tag_schemes import join_tag, tags_to_entities
from processors.text_lines import read_lines

_LONG_SENTENCE = 2000


def read_columns(
    path: Path,
    split: str,
    tag_column: str = "last",
    labelled: bool = True,
    plain_tags: bool = False,
    findings: Findings | None = None,
    word_column: str = "",
) -> Iterator[Example]:
    """Reads a file of tab- or space-separated columns.

    Args:
        path: the file.
        split: names the examples.
        tag_column: ``last``, a number (0 is the first column, -1 the last), or a name: of a header row, one of
            word/pos/chunk/ner, or a column of CoNLL-U.
        labelled: whether a file without a tag column is an error; an unlabelled test file has words only.
        plain_tags: the tags are classes of single words: ``NN`` is read as the entity of one word ``S-NN``.
        findings: collects what is odd in the file.
        word_column: likewise a number or name; by default the first column, or the second behind one that counts the
            words of each sentence.

    Raises:
        DataError: the file is not in columns or its tags cannot be understood; after the last line, all lines that have
            a different number of columns than the first.
    """
    findings = Findings() if findings is None else findings
    layout = column_layout(path, tag_column, word_column, labelled, plain_tags)
    counts: Counter[str] = Counter()
    entities: Counter[int] = Counter()  # of each column of tags
    sentences = words_read = 0
    for rows in _sentences(path, layout, labelled, findings):
        words = [fields[layout.word] for _, fields in rows]
        tags = [] if layout.tag is None else [fields[layout.tag] for _, fields in rows]
        if layout.dialect:
            usual = [layout.dialect.tags[tag] for tag in tags]
            counts[layout.dialect.description] += sum(map(ne, tags, usual))
            tags = usual
        elif plain_tags:
            tags = [join_tag("S", tag) for tag in tags]
        counts["empty words, which keep their places"] += words.count("")
        if layout.rivals:
            entities[-1] += len(tags_to_entities(tags))
        for column in layout.rivals:
            entities[column] += len(tags_to_entities([fields[column] for _, fields in rows]))
        lines = [number for number, _ in rows]
        labels = None if layout.tag is None else tags
        yield Example(f"{split}-{sentences}", words, labels, line=lines[0], word_lines=lines)
        sentences, words_read = sentences + 1, words_read + len(words)
    findings.raise_faults()
    if layout.has_index and not word_column:
        counts["words read from column 1: column 0 numbers them (--word_column takes another)"] = words_read
    if sentences == 1 and words_read > _LONG_SENTENCE:
        counts["words in a single sentence: are the blank lines between sentences missing?"] = words_read
    for column in layout.rivals:
        kind = f"entities in column {column} are not read: the last column is, which has {entities[-1]}"
        counts[f"{kind}; --tag_column {column} reads the others"] = entities[column]
    for kind, count in counts.items():
        if count:
            findings.add(kind, count=count)


def _sentences(
    path: Path, layout: ColumnLayout, labelled: bool, findings: Findings
) -> Iterator[list[tuple[int, list[str]]]]:
    """The fields of each sentence's words, with the numbers of their lines."""
    rows: list[tuple[int, list[str]]] = []
    for number, line in read_lines(path, findings):
        kind = layout.other_lines.get(number, "")
        fields = [] if kind else split_fields(line, layout.columns, labelled)
        if fields and len(fields) != layout.columns:
            message = f"{len(fields)} columns in {line!r}, but the lines before have {layout.columns}"
            findings.fault(DataError(f"{message}; separate word and tag by one space or tab", path, number))
        elif fields:
            rows.append((number, fields))
        elif rows and kind in ("", DOCUMENT):
            yield rows
            rows = []
        if kind and kind != DOCUMENT:
            known = f"{kind}, left out" in findings.counts
            findings.add(f"{kind}, left out", "" if known else f"{path}:{number}: {line!r} is the first of the {kind}")
    if rows:
        yield rows
