"""Reads TensorBoard events without TensorBoard."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event

_LENGTH, _CHECKSUM = struct.Struct("<Q"), 4


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The value of each tag at each step, of all event files of a folder."""
    scalars: dict[str, dict[int, float]] = defaultdict(dict)
    for step, value in event_values(folder):
        if value.HasField("simple_value"):
            scalars[value.tag][step] = value.simple_value
    return dict(scalars)


def event_values(folder: Path) -> Iterator[tuple[int, Any]]:
    """Steps and ``Summary.Value``s of all event files; what a killed run left half written ends its file."""
    for path in sorted(folder.glob("events.*")):
        for event in _events(path.read_bytes()):
            for value in event.summary.value:
                yield event.step, value


def _events(content: bytes) -> Iterator[Any]:
    position = 0
    while position + _LENGTH.size <= len(content):  # a record: length, its checksum, event, its checksum
        (length,) = _LENGTH.unpack_from(content, position)
        start = position + _LENGTH.size + _CHECKSUM
        position = start + length + _CHECKSUM
        if position <= len(content):
            yield Event.FromString(content[start : start + length])
