"""Conversion of other tag notations to the usual one: ``B_PER``, ``PER-B``, ``b-per``, bare types, special labels.

`canonical_tags` considers all tags of a corpus or model together, by these rules:

1. If there is no ``O``, a lower-case ``o``, or else ``0``, is read as ``O``.
2. If `common.tag_schemes` can read all tags, they are kept.
3. Otherwise all tags must use one notation: prefix or type first, joined by a hyphen or an underscore, the prefix in
   upper or lower case. The type keeps its case, hyphens and underscores.
4. If no tag has a prefix and ``O`` is among them, the tags are types and become ``I-TYPE`` (scheme IO). Labels of a
   model without ``O`` are classes of single words, such as parts of speech, and become ``S-CLASS``.
5. Labels of a model that are not tags, such as ``X``, ``PAD`` or ``[CLS]``, become the empty string.
6. Ambiguous tags, and different tags with the same canonical form, are errors.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from common.tag_schemes import OUTSIDE, is_tag, join_tag

_LETTERS = "BIMELSU"
_DIALECTS = {
    "PREFIX-TYPE": r"(?P<prefix>[bimelsu])(?:-(?P<type>.+))?",
    "PREFIX_TYPE": r"(?P<prefix>[bimelsu])(?:_(?P<type>.+))?",
    "TYPE-PREFIX": r"(?:(?P<type>.+)-)?(?P<prefix>[bimelsu])",
    "TYPE_PREFIX": r"(?:(?P<type>.+)_)?(?P<prefix>[bimelsu])",
}
_PREFIXED = r"[bimelsu][-_].*|.*[-_][bimelsu]"
_SPECIAL = r"\[.+\]|<.+>|PAD|pad|CLS|SEP|BOS|EOS|UNK|START|STOP|END"
_NO_TAG = "X"  # label of non-first word pieces in many models, but also a universal part of speech
_SHOWN = 10


@dataclass(frozen=True)
class Dialect:
    """The tag notation of a corpus or model.

    Args:
        tags: canonical form of each tag; the empty string for a special label.
        description: how the notation differs from the usual one, for the log; empty if it does not.
    """

    tags: dict[str, str]
    description: str = ""


class UnknownTagsError(ValueError):
    """Some tags cannot be read.

    Args:
        tags: these tags.
        reason: why not, as the end of the message.
    """

    def __init__(self, tags: Iterable[str], reason: str) -> None:
        self.tags = sorted(tags)
        more = len(self.tags) - _SHOWN
        shown = ", ".join(map(repr, self.tags[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
        super().__init__(f"{shown} {reason}")


def canonical_tags(tags: Iterable[str], special: bool = False) -> Dialect:
    """Map each tag to its canonical form: ``{"B_PER": "B-PER", "O": "O"}``.

    Args:
        tags: all distinct tags of a corpus, or all labels of a model.
        special: whether these are the labels of a model, which may include special labels.

    Raises:
        UnknownTagsError: some tags are unknown or ambiguous.
    """
    known = list(dict.fromkeys(tags))
    outside = next((tag for tag in (OUTSIDE, "o", "0") if tag in known), None)
    specials = {tag for tag in known if tag == _NO_TAG or re.fullmatch(_SPECIAL, tag)} if special else set()
    inner = set(known) - specials - {outside}
    found, descriptions = _read_together(inner, has_outside=outside is not None, may_be_classes=special)
    if _NO_TAG in specials and found and all(name == f"S-{tag}" for tag, name in found.items()):
        found[_NO_TAG] = f"S-{_NO_TAG}"
        specials.remove(_NO_TAG)
    if outside is not None:
        found[outside] = OUTSIDE
        descriptions += [f"{outside!r} for {OUTSIDE!r}"] * (outside != OUTSIDE)
    if specials:
        descriptions.append(f"special labels {', '.join(sorted(specials))}")
    return Dialect({tag: found.get(tag, "") for tag in known}, "; ".join(descriptions))


def _read_together(tags: set[str], has_outside: bool, may_be_classes: bool) -> tuple[dict[str, str], list[str]]:
    """Map tags other than ``O`` to their canonical form and describe their notation."""
    if all(map(is_tag, tags)):
        return {tag: tag for tag in tags}, []
    readings = {name: _read(pattern, tags) for name, pattern in _DIALECTS.items()}
    complete = {name: reading for name, reading in readings.items() if len(reading) == len(tags)}
    if complete:
        name, reading = next(iter(complete.items()))
        _refuse_two_readings(complete)
        _refuse_shared_names(reading)
        return reading, [_described(f"written {name}", reading)]
    if not any(re.fullmatch(_PREFIXED, tag, re.IGNORECASE) for tag in tags):
        if not has_outside and may_be_classes:
            return {tag: f"S-{tag}" for tag in tags}, ["classes of single words"]
        if has_outside and all(re.search(r"[^\W\d_]", tag) and tag.upper() not in _LETTERS for tag in tags):
            reading = {tag: f"I-{tag}" for tag in tags}
            return reading, [_described("without prefixes (IO)", reading)]
    unread = min((tags - reading.keys() for reading in readings.values()), key=len)
    verb = "is not a tag" if len(unread) == 1 else "are not tags"
    raise UnknownTagsError(unread, f"{verb}: expected O or one of {'/'.join(_LETTERS)} with a type, as in B-PER")


def _read(pattern: str, tags: Iterable[str]) -> dict[str, str]:
    """Map the tags that match a notation to their canonical form."""
    matches = {tag: re.fullmatch(pattern, tag, re.IGNORECASE) for tag in tags}
    return {tag: join_tag(match["prefix"].upper(), match["type"] or "") for tag, match in matches.items() if match}


def _described(how: str, reading: dict[str, str]) -> str:
    tag = min(reading)
    return f"tags {how}, {tag!r} for {reading[tag]!r}"


def _refuse_two_readings(complete: dict[str, dict[str, str]]) -> None:
    (first, reading), *others = complete.items()
    for other, differently in others:
        if differing := {tag for tag in reading if reading[tag] != differently[tag]}:
            raise UnknownTagsError(differing, f"can be read in two ways, as {first} and as {other}")


def _refuse_shared_names(reading: dict[str, str]) -> None:
    writings = defaultdict(set)
    for tag, name in reading.items():
        writings[name].add(tag)
    if shared := set().union(*(tags for tags in writings.values() if len(tags) > 1)):
        raise UnknownTagsError(shared, "are several ways to write the same tags")
