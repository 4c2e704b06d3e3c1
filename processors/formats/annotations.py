"""Conversion of JSON annotations over characters or words to `Span`s."""

from collections.abc import Iterator, Sequence
from typing import Any

from processors.examples import DataError, Findings
from processors.spans import Source, Span, place_of, same_letters

# Keys of the first and last position, and the offset from the last position to the exclusive end.
_PLACES = (
    ("start", "end", 0),
    ("start_offset", "end_offset", 0),
    ("start_char", "end_char", 0),
    ("begin", "end", 0),
    ("start_idx", "end_idx", 1),
)
_WORD_PLACES = ("first_word", "last_word", 1)
_TYPES = ("type", "label", "entity_type", "entity_group", "entity")
_SURFACES = ("text", "surface", "entity")
_SHOWN = 100
_EXPECTED = (
    '{"start", "end", "type"}, {"start_offset", "end_offset", "label"}, {"start_idx", "end_idx", "type"}, '
    '{"index", "type"}, [start, end, type], or CLUENER\'s {type: {surface: [[start, last]]}}'
)


def spans_of(
    annotation: Any, units: Sequence[str], source: Source, findings: Findings, last_included: bool = False
) -> list[Span]:
    """Convert annotations of any known shape to spans with exclusive ends.

    Args:
        annotation: a list of objects or of ``[start, end, type]``, an object of columns, or CLUENER's object.
        units: the text or the words. If annotations give their surface, it decides whether their ends are inclusive.
        source: location for messages.
        findings: collects what was left out or decided.
        last_included: whether the end in ``[start, end, type]`` is inclusive.

    Raises:
        DataError: an annotation has an unknown shape.
    """
    spans: list[Span] = []
    places = _PLACES if isinstance(units, str) else (_WORD_PLACES, *_PLACES)
    for value in _values(annotation, source):
        try:
            spans.extend(_spans(value, source, findings, places, last_included))
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise _unreadable(value, source) from error
    return _with_ends_as_read(spans, units, findings)


def _values(annotation: Any, source: Source) -> list[Any]:
    """List the annotations; an object of lists, as in tables of structs, is transposed."""
    if isinstance(annotation, dict):
        columns = list(annotation.values())
        if columns and all(isinstance(column, list) for column in columns) and len({*map(len, columns)}) == 1:
            return [dict(zip(annotation, row, strict=True)) for row in zip(*columns, strict=True)]
        return list(annotation.items())
    if isinstance(annotation, list):
        return annotation
    raise _unreadable(annotation, source)


def _unreadable(value: Any, source: Source) -> DataError:
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return source.error(f"cannot read the annotation {shown}; expected {_EXPECTED}")


def _spans(
    value: Any, source: Source, findings: Findings, places: Sequence[tuple[str, str, int]], last_included: bool
) -> Iterator[Span]:
    """Yield the spans of one annotation: one, several for a type of CLUENER, or none for a discontinuous entity."""
    if isinstance(value, tuple):
        entity_type, surfaces = value
        for surface, found in (surfaces or {}).items():
            for start, last in found or []:
                yield Span(entity_type, place_of(start), place_of(last) + 1, surface)
    elif isinstance(value, list):
        yield Span(_name(value[2]), place_of(value[0]), place_of(value[1]) + last_included)
    elif value.get("index") is not None:
        index = sorted(map(place_of, value["index"]))
        entity_type = _type_of(value, findings)
        if index == list(range(index[0], index[-1] + 1)):
            yield Span(entity_type, index[0], index[-1] + 1)
        else:
            place = f"{source.path}:{source.line}: {source.guid}"
            findings.add("discontinuous entities, left out", f"{place}: {entity_type} {index}")
    else:
        first, last, included = next((keys for keys in places if value.get(keys[0]) is not None), _PLACES[0])
        start, end = place_of(value[first]), place_of(value[last]) + included
        surface = next((text for key in _SURFACES if isinstance(text := value.get(key), str)), None)
        named_by_entity = not any(key in value for key in _TYPES[:-1])
        yield Span(_type_of(value, findings), start, end, None if named_by_entity else surface)


def _type_of(value: dict[str, Any], findings: Findings) -> str:
    key = next((key for key in _TYPES if key in value), "type")
    entity_type = value[key]
    if isinstance(entity_type, list) and entity_type:
        findings.add("types after the first of their annotation, left out", count=len(entity_type) - 1)
        entity_type = entity_type[0]
    return "" if entity_type is None else _name(entity_type)


def _name(entity_type: Any) -> str:
    if not isinstance(entity_type, str):
        raise TypeError(f"the type {entity_type!r} is not a name")
    return entity_type


def _with_ends_as_read(spans: list[Span], units: Sequence[str], findings: Findings) -> list[Span]:
    """Move the ends by one if more spans match their surface then."""
    told = [span for span in spans if span.surface is not None]

    def right(shift: int) -> tuple[int, int]:
        inside = [span for span in told if span.start >= 0 and span.end + shift <= len(units)]
        found = [(span.surface or "", "".join(units[span.start : span.end + shift])) for span in inside]
        return sum(one == other for one, other in found), sum(same_letters(*pair) for pair in found)

    shift = max((0, 1, -1), key=right)
    if shift:
        meaning = "the last position" if shift == 1 else "the position after the last"
        findings.add(f"texts whose annotations end with {meaning}, as their surfaces show")
    return [span._replace(end=span.end + shift) for span in spans]
