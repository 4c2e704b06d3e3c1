"""Keys of JSON records that tell what is annotated: ``annotated`` regions, and the types that are ``complete``."""

from typing import Any

from common.entities import Annotation, ranges_of
from processors.examples import Example
from processors.offset_units import in_utf16
from processors.spans import Source, place_of

ANNOTATED, COMPLETE = PARTIAL_KEYS = ("annotated", "complete")
_BINARY = "_is_binary"  # of Prodigy: one span was accepted or rejected, and nothing is known of the rest


def regions_of(record: dict[str, Any], source: Source) -> list[tuple[int, int]] | None:
    """Annotated regions ``(start, end)`` of a text, end exclusive, in characters or words as its spans; ``None``: all.

    Raises:
        DataError: they are no list of pairs of whole numbers.
    """
    regions = record.get(ANNOTATED)
    if regions is None or isinstance(regions, bool | str):
        return [] if record.get(_BINARY) is True else None
    try:
        found = [(place_of(start), place_of(end)) for start, end in regions]
    except (TypeError, ValueError) as error:
        raise source.error(f"{ANNOTATED} is {regions!r}; expected a list of [start, end]") from error
    for start, end in found:
        if not 0 <= start < end:
            raise source.error(f"{ANNOTATED}: [{start}, {end}] is no region; expected 0 <= start < end (exclusive)")
    return found


def complete_types_of(record: dict[str, Any], source: Source) -> frozenset[str] | None:
    """Types that are annotated completely; ``None``: not told.

    Raises:
        DataError: they are no list of names.
    """
    types = record.get(COMPLETE)
    if types is None or isinstance(types, bool | str | int | float):  # another key of this name
        return None
    if not isinstance(types, list) or not all(isinstance(name, str) for name in types):
        raise source.error(f"{COMPLETE} is {types!r}; expected a list of entity types")
    return frozenset(types)


def partial_keys(example: Example, unit: str) -> dict[str, Any]:
    """The keys that tell what of a text is annotated; none if all is.

    Args:
        unit: ``word``, or a unit of `processors.offset_units.OFFSET_UNITS`.
    """
    keys: dict[str, Any] = {}
    if example.entities is None:
        return keys
    if example.unannotated:
        keys[ANNOTATED] = [list(_region(example, *words, unit)) for words in annotated_ranges(example.annotation)]
    if example.complete is not None:
        keys[COMPLETE] = sorted(example.complete)
    return keys


def annotated_ranges(annotation: Annotation) -> list[tuple[int, int]]:
    """The inclusive word ranges that are annotated."""
    unknown = {word for first, last in annotation.unannotated for word in range(first, last + 1)}
    return ranges_of(word for word in range(annotation.words) if word not in unknown)


def _region(example: Example, first: int, last: int, unit: str) -> tuple[int, int]:
    if unit == "word":
        return first, last + 1
    text, offsets = example.text or "", example.offsets or []
    start, end = offsets[first][0], offsets[last][1]
    return (in_utf16(text, start), in_utf16(text, end)) if unit == "utf16" else (start, end)
