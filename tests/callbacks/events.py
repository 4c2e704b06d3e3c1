"""Reads TensorBoard events without TensorBoard."""

import struct
from collections import defaultdict
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The value of each tag at each step, of all event files of a folder."""
    scalars: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob("events.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):  # a record: length, its checksum, event, its checksum
            (length,) = struct.unpack_from("<Q", content, position)
            event = Event.FromString(content[position + 12 : position + 12 + length])
            for value in event.summary.value:
                scalars[value.tag][event.step] = value.simple_value
            position += 12 + length + 4
    return dict(scalars)
