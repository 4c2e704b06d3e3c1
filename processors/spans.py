"""How a file is read: tags, and annotations over characters or words, to entities."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from common.entities import Entity, in_text_order
from common.tag_schemes import (
    OUTSIDE,
    SCHEMES,
    UNKNOWN,
    MixedSchemesError,
    TagScheme,
    detect_scheme,
    split_tag,
    tag_pairs,
    tags_to_entities,
)
from processors.examples import DataError, Example, Findings
from processors.offset_units import TABLES
from processors.text.word_cutting import WordCutter, find_words

SPAN_EDGES = ("snap", "drop", "error")
T = TypeVar("T")
Regions = Sequence[tuple[int, int]] | None
_REGION = "annotated region"
_ADVICE = "correct it, use --span_edges snap or drop, or label characters with --word_unit char"


class Span(NamedTuple):
    """An annotation of the characters or words ``start`` to ``end`` (exclusive).

    Args:
        surface: text of the span as given in the file, if it is.
        line: line of the file, if it differs from that of the text.
    """

    type: str
    start: int
    end: int
    surface: str | None = None
    line: int = 0


def place_of(value: Any) -> int:
    """Convert an offset given as a number or string to an int.

    Raises:
        TypeError, ValueError: it is not a whole number, such as 4.7 or true.
    """
    if isinstance(value, bool) or not float(value).is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    return int(float(value))


@dataclass(frozen=True)
class Source:
    """Location of the annotations of a text, for messages."""

    path: Path
    line: int
    guid: str

    def error(self, message: str, span: Span | None = None) -> DataError:
        return DataError(f"{self.guid}: {message}", self.path, span.line if span and span.line else self.line)


@dataclass
class TagReader:
    """Reads the tags of one file, in any scheme, as ``conlleval`` does.

    Args:
        plain: whether the tags are classes of single words, such as parts of speech; then each word is an entity.
        transitions: number of occurrences of each pair of adjacent tags.
        first_lines: line on which each pair first occurs.
    """

    plain: bool = False
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_lines: dict[tuple[str, str], int] = field(default_factory=dict)

    def entities(self, tags: Sequence[str], lines: Sequence[int]) -> list[Entity]:
        """Read the entities of a sentence.

        Args:
            tags: tags of the words.
            lines: lines of the words, or one line for all.
        """
        if self.plain:
            return [Entity(tag, word, word) for word, tag in enumerate(tags)]
        pairs = list(tag_pairs(tags))
        found = pairs
        if UNKNOWN in tags:
            found = [pair for pair in pairs if UNKNOWN not in pair]
            tags = [OUTSIDE if tag == UNKNOWN else tag for tag in tags]
        self.transitions.update(found)
        for pair in set(found) - self.first_lines.keys():
            self.first_lines[pair] = lines[min(pairs.index(pair), len(lines) - 1)]
        return tags_to_entities(tags)

    def annotate(self, example: Example, levels: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
        """Set the entities of a sentence, and which of its words have the tag ``?`` and are not annotated.

        Args:
            levels: tags of the words, several for entities that overlap.
            lines: as for `entities`.
        """
        found = [self.entities(tags, lines) for tags in levels]
        example.entities = found[0] if len(found) == 1 else in_text_order(chain.from_iterable(found))
        if not self.plain and any(UNKNOWN in tags for tags in levels):
            example.set_unannotated(word for tags in levels for word, tag in enumerate(tags) if tag == UNKNOWN)

    def scheme(self, source: str) -> TagScheme | None:
        """Detect the scheme of all tags read so far; ``None`` if there are none.

        Raises:
            DataError: no scheme has all the prefixes.
        """
        if not self.transitions:
            return None
        try:
            return detect_scheme(self.transitions)
        except MixedSchemesError as error:
            last_first = sorted(self.first_lines.items(), key=lambda item: -item[1])
            lines = {split_tag(tag)[0]: line for (_, tag), line in last_first}
            places = ", ".join(f"{prefix} first on line {lines[prefix]}" for prefix in sorted(lines.keys() - {OUTSIDE}))
            known = "; ".join(f"{name}: {'/'.join(scheme.prefixes)}" for name, scheme in SCHEMES.items())
            raise DataError(f"{error} ({places}); convert the file to one of {known}", source) from None

    def illegal(self, scheme: TagScheme) -> tuple[int, int]:
        """Number of transitions that the scheme does not allow, and the first line with one; 0 and 0 without any."""
        found = [pair for pair in self.transitions if not scheme.allows(*pair)]
        lines = (self.first_lines[pair] for pair in found)
        return sum(self.transitions[pair] for pair in found), min(lines, default=0)


@dataclass(frozen=True)
class Reading:
    """How a file is read into examples, and what is found in it: cuts texts, converts spans and tags to entities.

    A faulty annotation (empty, reversed, without a type, only white space, or with a surface that differs from the
    text) is left out, counted and listed. An offset outside the text is a fault, because then the file uses another
    unit or text and its other offsets are wrong too.

    Args:
        word_unit, kept_words: how text is cut; see `processors.text.word_cutting.WordCutter`.
        edges: how to treat a span whose edge cuts a word: ``snap`` widens it to the whole word, ``drop`` leaves it out.
            Both trim white space at the edges. ``error`` makes every faulty annotation a fault.
        offset_unit: unit of the offsets: ``code_point``, ``utf16``, or ``auto``: code points, with a warning if that
            may be wrong. If the file gives surfaces, they decide.
        split: prefix of the names of examples that have none in the file.
        labelled: whether a text without annotation is an error.
        tag_column: of a column file ``last``, a number (0 is the first column, -1 the last), or a name from the header
            row, from word/pos/chunk/ner, or of CoNLL-U, or several of these with commas, whose entities are put
            together; of records the key of the tags, with or without ``_tags``; ``last`` tries the usual keys.
        word_column: number or name of the word column; by default the first column that does not number the words.
        class_names: names of tags that are stored as numbers.
        complete_types: types that are annotated completely in texts that do not tell; empty: all.
        tags: converts tags to entities.
        findings: collects problems and faults.
    """

    word_unit: str = "auto"
    edges: str = "snap"
    offset_unit: str = "auto"
    kept_words: tuple[str, ...] = ()
    split: str = "train"
    labelled: bool = True
    tag_column: str = "last"
    word_column: str = ""
    class_names: tuple[str, ...] = ()
    complete_types: tuple[str, ...] = ()
    tags: TagReader = field(default_factory=TagReader)
    findings: Findings = field(default_factory=Findings)

    def examples_of(
        self, numbered: Iterable[tuple[int, T]], read: Callable[[int, T], Iterable[Example]]
    ) -> Iterator[Example]:
        """Convert numbered records to examples; after the last one, the faults of all records are raised together."""
        try:
            for number, record in numbered:
                try:
                    examples = list(read(number, record))
                except DataError as error:
                    self.findings.fault(error)
                else:
                    yield from examples
        except DataError as error:  # the rest cannot be read either
            self.findings.fault(error)
        self.findings.raise_faults()

    def example(
        self,
        text: str,
        spans: Sequence[Span] | None,
        source: Source,
        offsets: list[tuple[int, int]] | None = None,
        regions: Regions = None,
    ) -> Example:
        """Make an example of a text and spans over its characters.

        Args:
            text: the text.
            spans: annotations over its characters; ``None`` for a text without annotation.
            source: location for messages.
            offsets: character offsets of the words, in order, if the file has words; otherwise the text is cut.
            regions: what is annotated, ``(start, end)`` in characters; a word is if all of it is.
        """
        words_given = offsets is not None
        offsets = WordCutter(self.word_unit, self.kept_words).split(text)[1] if offsets is None else offsets
        words = [text[start:end] for start, end in offsets]
        example = Example(source.guid, words, None, text, offsets, source.line, words_given=words_given)
        if spans is None:
            return example
        starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
        entities, annotated = [], set[int]()
        in_regions = [Span(_REGION, *region) for region in regions or ()]
        for span in self._in_characters(text, [*self._sound(spans, source), *in_regions], source):
            if span.type == _REGION:
                annotated.update(range(bisect_left(starts, span.start), bisect_right(ends, span.end)))
                continue
            first, after = bisect_right(ends, span.start), bisect_left(starts, span.end)
            if self._fits(span, example, first, after, source):
                entities.append(Entity(span.type, first, after - 1))
        example.entities = in_text_order(entities)
        if regions is not None:
            example.set_unannotated(set(range(len(words))) - annotated)
        return example

    def example_of_words(
        self,
        words: list[str],
        spans: Sequence[Span] | None,
        source: Source,
        text: str | None = None,
        regions: Regions = None,
    ) -> Example:
        """Make an example of words and spans over them.

        Args:
            words: the words.
            spans: annotations over the words; ``None`` for unlabelled words.
            source: location for messages.
            text: the text from which the words were cut; ignored if it contains anything else.
            regions: what is annotated, ``(start, end)`` in words.
        """
        example = Example(source.guid, words, None, line=source.line)
        if text is not None and (offsets := find_words(words, text)) is not None:
            example.text, example.offsets = text, offsets
        if spans is None:
            return example
        entities = []
        for span in self._sound(spans, source):
            if not 0 <= span.start < span.end <= len(words):
                message = f"{span.type} [{span.start}, {span.end}) lies outside the {len(words)} words"
                self.findings.fault(source.error(message, span))
            elif span.surface is not None and not same_letters(span.surface, "".join(words[span.start : span.end])):
                self._settle_misread(span, source)
            else:
                entities.append(Entity(span.type, span.start, span.end - 1))
        example.entities = in_text_order(entities)
        self.mark_regions(example, regions, source)
        return example

    def mark_regions(self, example: Example, regions: Regions, source: Source) -> None:
        """Mark the words outside of regions ``(start, end)`` of words as not annotated."""
        if regions is None:
            return
        for start, end in regions:
            if end > len(example.words):
                message = f"the {_REGION} [{start}, {end}) lies outside the {len(example.words)} words"
                self.findings.fault(source.error(message))
        annotated = {word for start, end in regions for word in range(start, end)}
        example.set_unannotated(set(range(len(example.words))) - annotated)

    def _sound(self, spans: Sequence[Span], source: Source) -> list[Span]:
        """Drop spans that are faulty regardless of the text."""
        sound = []
        for span in spans:
            place = f"[{span.start}, {span.end})"
            if not span.type.strip():
                kind, message = "entities without a type, left out", f"the entity {place} has no type"
            elif span.start == span.end:
                kind, message = "empty entities (start = end), left out", f"{span.type} {place} is empty"
            elif span.start > span.end:
                kind, message = (
                    "entities that end before they start, left out",
                    f"{span.type} {place} ends before it starts",
                )
            else:
                sound.append(span)
                continue
            self._settle(kind, message, span, source)
        return sound

    def _in_characters(self, text: str, spans: Sequence[Span], source: Source) -> list[Span]:
        """Convert offsets to code points and drop spans whose surface differs from the text."""
        unit = "code_point" if self.offset_unit == "auto" else self.offset_unit
        located = _located(spans, text, unit)
        if None in located and any(span.surface is not None for span in spans):
            readings = {unit: located} | {other: _located(spans, text, other) for other in TABLES if other != unit}
            unit = min(readings, key=lambda name: readings[name].count(None))
            located = readings[unit]
            if unit != "code_point":
                self.findings.add(f"texts with offsets in another unit ({unit}), as their entities show")
        found = []
        for span, place in zip(spans, located, strict=True):
            if place is not None:
                found.append(place)
            elif span.surface is None:
                wide = max(text, default="") > "\uffff"
                advice = "; if the file counts UTF-16 units, use --offset_unit utf16" if wide else ""
                message = f"{span.type} [{span.start}, {span.end}) lies outside the {len(text)} characters{advice}"
                self.findings.fault(source.error(message, span))
            else:
                self._settle_misread(span, source)
        last = max((span.end for span in spans if span.surface is None), default=0)
        if self.offset_unit == "auto" and any(character > "\uffff" for character in text[:last]):
            self.findings.add(_AMBIGUOUS)
        return found

    def _fits(self, span: Span, example: Example, first: int, after: int, source: Source) -> bool:
        """Whether a span becomes an entity over the words that it touches, ``first`` to ``after`` (exclusive)."""
        text, offsets, words = example.text or "", example.offsets or [], example.words
        read = shown(span, text[span.start : span.end])
        if first >= after:
            self._settle("entities of white space only, left out", f"{read} contains no word", span, source)
            return False
        start, end = offsets[first][0], offsets[after - 1][1]
        cut = {first: words[first]} if start < span.start else {}
        cut |= {after - 1: words[after - 1]} if end > span.end else {}
        message = (
            f"{read} cuts {' and '.join(map(repr, cut.values()))}" if cut else f"{read} begins or ends in white space"
        )
        if cut and self.edges == "drop":
            self._settle("entities whose edges cut words, left out (--span_edges drop)", message, span, source)
            return False
        if (start, end) != (span.start, span.end):
            kind = "entities with white space at their edges, trimmed"
            if cut:
                kind = "entities whose edges cut words, widened to whole words (--span_edges snap)"
            self._settle(kind, message, span, source, f", taken as {text[start:end]!r} [{start}, {end})")
        return True

    def _settle_misread(self, span: Span, source: Source) -> None:
        message = f"{shown(span, span.surface or '')} does not match the text there"
        self._settle("entities that do not match their text, left out", message, span, source)

    def _settle(self, kind: str, message: str, span: Span, source: Source, outcome: str = "") -> None:
        """Record a problem and its outcome; a fault if ``edges`` is ``error``."""
        if self.edges == "error":
            self.findings.fault(source.error(f"{message}; {_ADVICE}", span))
            return
        place = f"{source.path}:{span.line or source.line}: {source.guid}"
        self.findings.add(kind, f"{place}: {message}{outcome}")


_AMBIGUOUS = (
    "texts with characters beyond U+FFFF, such as emoji, before the end of an entity: each counts as one; if the "
    "entities are shifted, the file counts UTF-16 units, as JavaScript and recent doccano do: use --offset_unit utf16"
)


def _located(spans: Sequence[Span], text: str, unit: str) -> list[Span | None]:
    """Convert spans to code points; ``None`` for a span that is outside the text or differs from its surface."""
    table, located = TABLES[unit](text), list[Span | None]()
    for span in spans:
        inside = 0 <= span.start < span.end < len(table)
        start, end = (table[span.start], table[span.end]) if inside else (-1, -1)
        differs = span.surface is not None and span.surface.split() != text[start:end].split()
        located.append(None if differs or -1 in (start, end) else span._replace(start=start, end=end))
    return located


def same_letters(one: str, other: str) -> bool:
    """Whether two texts are equal except for white space."""
    return "".join(one.split()) == "".join(other.split())


def shown(span: Span, surface: str) -> str:
    """Format a span for messages."""
    return f"{span.type} {surface!r} [{span.start}, {span.end})"
