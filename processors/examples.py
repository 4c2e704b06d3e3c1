"""Examples as read from a file, and data errors with file and line."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.entities import Annotation, Entity, ranges_of

# Han, kana, bopomofo, their punctuation, and full-width forms; not emoji, and not Korean, which uses spaces.
WIDE = (
    "\u2e80-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f"
    "\uff00-\uff9f\uffe0-\uffe6\U00020000-\U0003ffff"
)
_WIDE = re.compile(f"[{WIDE}]")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class DataError(ValueError):
    """Invalid input; the message says what was found, where, and what to do."""

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None) -> None:
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)


SHOWN_FAULTS = 10


@dataclass
class Findings:
    """Problems that a reader found in a file.

    Args:
        counts: number of problems of each kind, logged by the run.
        remarks: single problems with their location.
        faults: errors with their location. A reader adds a fault, skips the line or record and continues, so that
            `raise_faults` reports all of them together.
    """

    counts: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, kind: str, remark: str = "", count: int = 1) -> None:
        """Count problems of a kind; nothing happens if there are none."""
        if count > 0:
            self.counts[kind] = self.counts.get(kind, 0) + count
        if remark:
            self.remarks.append(remark)

    def mended(self, text: str) -> str:
        """Replace lone surrogates by U+FFFD and count them."""
        text, count = without_lone_surrogates(text)
        self.add("lone surrogates, replaced by U+FFFD", count=count)
        return text

    def fault(self, error: DataError) -> None:
        self.faults.append(str(error))

    def raise_faults(self) -> None:
        """Raise one DataError with the first faults and the number of all, if there are any."""
        if not self.faults:
            return
        if len(self.faults) == 1:
            raise DataError(self.faults[0])
        shown = "".join(f"\n  {fault}" for fault in self.faults[:SHOWN_FAULTS])
        more = len(self.faults) - SHOWN_FAULTS
        raise DataError(f"{len(self.faults)} faults:{shown}" + (f"\n  and {more} more" if more > 0 else ""))


@dataclass
class Example:
    """A text cut into words, with its entities if it is annotated.

    Args:
        guid: name of the example, for instance ``train-17``.
        words: the units of entities: words, or characters in Chinese corpora.
        entities: may nest and overlap; ``None`` for a text without annotation.
        text: the original text; by default the words joined as usual in their script.
        offsets: characters ``(start, end)`` of each word in ``text``, end exclusive.
        line: line of the file on which the example starts; in a brat folder, the number of the text.
        word_lines: line of each word, if each word has its own line.
        unannotated: inclusive word ranges ``(first_word, last_word)`` without annotation.
        complete: types of which all entities are annotated; ``None``: all types.
        confidences: confidence of each entity, if a model predicted them.
        words_given: whether the file has these words; otherwise they were cut from its text.
        document: name of the document that the text is a sentence of; empty if the file does not tell.
    """

    guid: str
    words: list[str]
    entities: list[Entity] | None = None
    text: str | None = None
    offsets: list[tuple[int, int]] | None = None
    line: int = 0
    word_lines: Sequence[int] = ()
    unannotated: list[tuple[int, int]] = field(default_factory=list)
    confidences: list[float] | None = None
    words_given: bool = True
    document: str = ""
    complete: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for first, last in (*(entity[1:] for entity in self.entities or ()), *self.unannotated):
            if not 0 <= first <= last < len(self.words):
                raise ValueError(f"{self.guid}: [{first}, {last}] lies outside the {len(self.words)} words")
        if (self.text is None) != (self.offsets is None):
            raise ValueError(f"{self.guid}: a text needs the offsets of its words, and offsets need their text")
        if self.text is None:
            self.text, self.offsets = join_words(self.words)

    @property
    def annotation(self) -> Annotation:
        return Annotation(len(self.words), self.entities, self.unannotated, self.complete)

    def set_unannotated(self, words: Iterable[int]) -> None:
        """Mark words as not annotated; those of entities always are."""
        known = {word for one in self.entities or () for word in range(one.first_word, one.last_word + 1)}
        self.unannotated = ranges_of(sorted(set(words) - known))

    def place(self, entity: Entity) -> tuple[int, int]:
        """First and last character (exclusive) of an entity in the text."""
        offsets = self.offsets or []
        return offsets[entity.first_word][0], offsets[entity.last_word][1]

    def line_of(self, position: int) -> int:
        """Line of the file with the word at ``position``."""
        return self.word_lines[min(position, len(self.words) - 1)] if self.word_lines else self.line


def join_words(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join words to a text as usual in their script, and return the text and the character offsets of the words.

    If all words are single characters, they are joined without spaces. Otherwise words are joined by spaces, except
    next to a Chinese or Japanese character.
    """
    spaced = any(len(word) > 1 for word in words)
    parts: list[str] = []
    offsets: list[tuple[int, int]] = []
    position, previous = 0, ""
    for word in words:
        if spaced and previous and word and not (is_wide(previous[-1]) or is_wide(word[0])):
            parts.append(" ")
            position += 1
        parts.append(word)
        offsets.append((position, position + len(word)))
        position, previous = position + len(word), word or previous
    return "".join(parts), offsets


def is_wide(character: str) -> bool:
    """Whether a character belongs to a script written without spaces (Chinese, Japanese)."""
    return _WIDE.match(character) is not None


def has_wide(text: str) -> bool:
    """Whether a text contains such a character."""
    return _WIDE.search(text) is not None


def without_lone_surrogates(text: str) -> tuple[str, int]:
    """Replace and count lone surrogates, which cannot be encoded, by U+FFFD; offsets do not change.

    Surrogate pairs must already be joined, as `json.loads` does.
    """
    return LONE_SURROGATE.subn("\ufffd", text) if LONE_SURROGATE.search(text) else (text, 0)
