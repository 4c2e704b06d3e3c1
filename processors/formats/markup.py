"""Answers of language models: inline mark-up and lists of surfaces with types, aligned to the original text."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

from processors.examples import is_wide
from processors.spans import Span

_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)(\n[ \t]*```|\Z)", re.DOTALL)
_JSON = re.compile(r'\[\s*[\[{"\]]|\{\s*["}]')
_NAME = r"[^\W\d][\w.-]*"
_MARKS = re.compile(
    rf"<(?P<close>/?)(?P<tag>{_NAME})>|\[(?P<linked>[^\[\]\n]+)\]\((?P<link>{_NAME})\)|(?P<open>@@)|(?P<end>\#\#)"
)
_LINE = re.compile(r"\s*(?:[-*•]|\d+[.)])?\s*(?P<surface>.*\S)\s*(?::|\t|->|→)\s*(?P<type>\S[^:]*?)\s*")
_NOTHING = re.compile(r"\W*((no|none|nothing|null|n/?a)\b.{0,40})?\W*", re.IGNORECASE | re.DOTALL)
_SURFACES, _TYPES = ("text", "surface", "entity", "name", "word"), ("type", "label", "entity_type", "entity_group")
_SAME = str.maketrans("‘’‚‛“”„‟«»‐‑‒–—―\u00a0\u2009\u202f\t\n", '\'\'\'\'""""""------     ')
_SHOWN = 80
_TAIL = 0.9  # an answer with a smaller share of the text, and nothing but its beginning, was cut off


class Mention(NamedTuple):
    """An entity of an answer: its type, its text, and where it is in the text of the answer, if it is a whole text."""

    type: str
    surface: str
    start: int = -1
    end: int = -1


class Failure(NamedTuple):
    """Something of an answer that is left out, and why."""

    why: str
    type: str = ""
    surface: str = ""


@dataclass
class Answer:
    """What an answer says.

    Args:
        mentions: in its order.
        text: the text that it repeats, without mark-up; ``None`` for a list.
        failures: what cannot be used.
        usable: whether it tells which entities the text has; otherwise it was cut off or not understood.
    """

    mentions: list[Mention] = field(default_factory=list)
    text: str | None = None
    failures: list[Failure] = field(default_factory=list)
    usable: bool = True

    @property
    def lost_types(self) -> set[str]:
        """Types of entities that the answer names but the text does not show."""
        return {one.type for one in self.failures if one.why == NOT_FOUND or one.why.startswith(CHANGED)}


CUT_OFF, UNREADABLE = "the answer is cut off", "the answer has no known form"
UNKNOWN_TYPE, NOT_FOUND = "the type is unknown", "no such words in the text"
CHANGED, NO_TYPE = "the words of the text differ too much", "@@ marks have no type without a single --types"


def read_answer(answer: Any, types: Sequence[str] = ()) -> Answer:
    """Read an answer of any known form.

    Args:
        answer: text, or parsed JSON.
        types: the known types, in any case; empty: all. A single one is that of ``@@surface##``.
    """
    read = _read(answer, {name.casefold(): name for name in types})
    known = []
    for mention in read.mentions:
        name = {one.casefold(): one for one in types}.get(mention.type.casefold(), "" if types else mention.type)
        if name:
            known.append(mention._replace(type=name))
        else:
            read.failures.append(Failure(UNKNOWN_TYPE, mention.type, mention.surface))
    read.mentions = known
    return read


def _read(answer: Any, types: Mapping[str, str]) -> Answer:
    if not isinstance(answer, str):
        return _of_list(answer, types)
    if fence := _FENCE.search(answer):
        if not fence[2]:
            return _unusable(CUT_OFF, answer[-_SHOWN:])
        answer = fence[1]
    json_starts = _JSON.search(answer)
    if json_starts:
        try:
            return _of_list(json.JSONDecoder().raw_decode(answer, json_starts.start())[0], types)
        except (ValueError, RecursionError):
            pass  # it may be another form
    if _tags_of(answer) or any(mark["link"] or mark["open"] for mark in _MARKS.finditer(answer)):
        return _of_marks(answer, types)
    if json_starts:
        return _unusable(CUT_OFF, answer[-_SHOWN:])
    if _NOTHING.fullmatch(answer):
        return Answer()
    lines = [(line, _LINE.fullmatch(line)) for line in answer.splitlines() if line.strip()]
    if not any(
        found and (not types or _swapped(found[1], found[2], types)[1].casefold() in types) for _, found in lines
    ):
        return Answer(text=answer)
    read = Answer()
    for line, found in lines:
        if found:
            surface, kind = _swapped(found[1], found[2], types)
            read.mentions.append(Mention(kind, surface.strip("\"'`")))
        else:
            read.failures.append(Failure(UNREADABLE, surface=line[:_SHOWN]))
    return read


def _unusable(why: str, shown: str) -> Answer:
    return Answer(failures=[Failure(why, surface=shown)], usable=False)


def _tags_of(answer: str) -> set[str]:
    """The tags that are opened and closed."""
    tags = [(mark["tag"], mark["close"]) for mark in _MARKS.finditer(answer) if mark["tag"]]
    return {tag for tag, close in tags if not close} & {tag for tag, close in tags if close}


def _swapped(surface: Any, kind: Any, types: Mapping[str, str]) -> tuple[Any, Any]:
    """A surface and its type, if they may come in any order."""
    known = [isinstance(one, str) and one.strip().casefold() in types for one in (surface, kind)]
    return (kind, surface) if known == [True, False] else (surface, kind)


def _of_list(value: Any, types: Mapping[str, str]) -> Answer:
    """Read ``[{"text": "Anna", "type": "PER"}]``, ``[["Anna", "PER"]]`` or ``{"PER": ["Anna"]}``."""
    read = Answer()
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list)]
        if any(isinstance(one, dict) for found in lists for one in found):  # {"entities": [...]}
            return _of_list([one for found in lists for one in found], types)
        pairs = [
            (surface, kind)
            for kind, found in value.items()
            for surface in (found if isinstance(found, list) else [found] if found else [])
        ]
    elif isinstance(value, list):
        pairs = [_pair(one) for one in value]
    else:
        return _unusable(UNREADABLE, repr(value)[:_SHOWN])
    for pair in pairs:
        surface, kind = _swapped(*pair, types)
        if isinstance(surface, str) and surface.strip() and isinstance(kind, str) and kind.strip():
            read.mentions.append(Mention(kind.strip(), surface))
        else:
            read.failures.append(Failure(UNREADABLE, surface=repr(pair)[:_SHOWN]))
    return read


def _pair(value: Any) -> tuple[Any, Any]:
    """The surface and the type of an entry of a list."""
    if isinstance(value, list):
        return (value[0], value[1]) if len(value) == 2 else (value, None)
    if not isinstance(value, dict):
        return value, None
    kind = next((value[key] for key in _TYPES if key in value), None)
    return next((value[key] for key in _SURFACES if key in value), None), kind


def _of_marks(answer: str, types: Mapping[str, str]) -> Answer:
    """Read ``<PER>Anna</PER>``, ``[Anna](PER)`` and ``@@Anna##``; marks of the first two that are no types stay."""
    read, parts, length, place = Answer(), list[str](), 0, 0
    opened: list[tuple[str, int]] = []
    single = next(iter(types.values())) if len(types) == 1 else ""
    tags = _tags_of(answer)

    def keep(text: str) -> None:
        nonlocal length
        parts.append(text)
        length += len(text)

    for mark in _MARKS.finditer(answer):
        if mark["tag"] and mark["tag"] not in tags and mark["tag"].casefold() not in types:
            continue  # of the text
        keep(answer[place : mark.start()])
        place = mark.end()
        if mark["linked"]:
            read.mentions.append(Mention(mark["link"], mark["linked"], length, length + len(mark["linked"])))
            keep(mark["linked"])
        elif mark["open"] or (mark["tag"] and not mark["close"]):
            opened.append((mark["tag"] or "@@", length))
        else:
            name = mark["tag"] or "@@"
            at = next((at for at in range(len(opened) - 1, -1, -1) if opened[at][0] == name), None)
            if at is None:
                read.failures.append(Failure("the mark is closed but not opened", name))
                continue
            start = opened.pop(at)[1]
            surface = "".join(parts)[start:]
            if name == "@@" and not single:
                read.failures.append(Failure(NO_TYPE, "", surface))
            else:
                read.mentions.append(Mention(single if name == "@@" else name, surface, start, length))
    keep(answer[place:])
    read.text = "".join(parts)
    for name, start in opened:
        read.failures.append(Failure("the mark is opened but not closed", name, read.text[start:][:_SHOWN]))
    return read


def align(read: Answer, text: str, min_similarity: float) -> list[Span]:
    """Find the mentions of an answer in the original text, and add those that are not there to its failures.

    Args:
        min_similarity: of a mention and the words of the text, from 0 to 1, without case, spaces and kinds of quotes.
    """
    if not read.usable:
        return []
    find = _of_surfaces if read.text is None else _of_whole_text
    return sorted(set(find(read, text, min_similarity)), key=lambda span: (span.start, -span.end, span.type))


def _of_whole_text(read: Answer, text: str, min_similarity: float) -> Iterator[Span]:
    """Align an answer that repeats the text with it, character by character."""
    answer, original = (read.text or ""), text
    mine, theirs = _alike(answer), _alike(original)
    start_alike = Levenshtein.normalized_similarity(mine.rstrip(), theirs[: len(mine.rstrip())])
    if len(mine.strip()) < _TAIL * len(theirs.strip()) and start_alike >= min_similarity:
        read.usable = False
        read.failures.append(Failure(CUT_OFF, surface=answer[-_SHOWN:]))
        return
    if not read.mentions and Levenshtein.normalized_similarity(mine, theirs) < min_similarity:
        read.usable = False
        read.failures.append(Failure(UNREADABLE, surface=answer[:_SHOWN]))
        return
    places: dict[int, int] = {}
    for step in Levenshtein.opcodes(mine, theirs):
        if step.tag in ("equal", "replace"):
            places.update(zip(range(step.src_start, step.src_end), range(step.dest_start, step.dest_end), strict=True))
    for mention in read.mentions:
        there = [places[place] for place in range(mention.start, mention.end) if place in places]
        if not there:
            read.failures.append(Failure(NOT_FOUND, mention.type, mention.surface))
            continue
        start, end = _whole_words(text, there[0], there[-1] + 1)
        if _similarity(mention.surface, text[start:end]) < min_similarity:
            read.failures.append(Failure(f"{CHANGED}: {text[start:end]!r:.80}", mention.type, mention.surface))
        else:
            yield Span(mention.type, start, end)


def _of_surfaces(read: Answer, text: str, min_similarity: float) -> Iterator[Span]:
    """Find each mention of a list once: behind the one before if it is there, else at the first place that is free."""
    taken: set[tuple[int, int]] = set()
    original, behind = _alike(text), 0
    for mention in read.mentions:
        surface = mention.surface.strip()
        places = [(start, start + len(surface)) for start in _occurrences(surface, text)]
        places = places or [(start, start + len(surface)) for start in _occurrences(_alike(surface), original)]
        if not places:
            free = original
            for start, end in taken:
                free = free[:start] + "\0" * (end - start) + free[end:]
            near = fuzz.partial_ratio_alignment(_alike(surface), free, score_cutoff=100 * min_similarity)
            start, end = _whole_words(text, near.dest_start, near.dest_end) if near else (0, 0)
            if start < end and _similarity(surface, text[start:end]) >= min_similarity:
                places = [(start, end)]
        free_places = [place for place in places if place not in taken]
        if not free_places:
            why = "the text has these words less often" if places else NOT_FOUND
            read.failures.append(Failure(why, mention.type, mention.surface))
            continue
        start, end = next((place for place in free_places if place[0] >= behind), free_places[0])
        taken.add((start, end))
        behind = end
        yield Span(mention.type, start, end)


def _alike(text: str) -> str:
    """The text without case and with one kind of quotes, dashes and spaces; no character moves."""
    text = text.translate(_SAME)
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(one.lower() if len(one.lower()) == 1 else one for one in text)


def _similarity(one: str, other: str) -> float:
    return fuzz.ratio("".join(_alike(one).split()), "".join(_alike(other).split())) / 100


def _occurrences(surface: str, text: str) -> Iterator[int]:
    """Where a surface is in a text without being a part of longer words."""
    start = text.find(surface) if surface else -1
    while start >= 0:
        if not _joined(text, start) and not _joined(text, start + len(surface)):
            yield start
        start = text.find(surface, start + 1)


def _joined(text: str, place: int) -> bool:
    """Whether the characters before and at a place are of one word."""
    pair = text[place - 1 : place + 1] if place else ""
    return len(pair) == 2 and pair.isalnum() and not (is_wide(pair[0]) or is_wide(pair[1]))


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a place to whole words, without white space at its edges."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while _joined(text, start):
        start -= 1
    while _joined(text, end):
        end += 1
    return start, end
