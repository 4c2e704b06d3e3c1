"""Reads TensorBoard events without TensorBoard."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The value of each tag at each step, of all event files of a folder."""
    scalars: dict[str, dict[int, float]] = defaultdict(dict)
    for step, value in _values(folder):
        if value.HasField("simple_value"):
            scalars[value.tag][step] = value.simple_value
    return dict(scalars)


def read_texts(folder: Path) -> dict[str, dict[int, str]]:
    """The same of texts."""
    texts: dict[str, dict[int, str]] = defaultdict(dict)
    for step, value in _values(folder):
        if value.tag.endswith("/text_summary"):
            texts[value.tag.removesuffix("/text_summary")][step] = value.tensor.string_val[0].decode()
    return dict(texts)


def read_images(folder: Path) -> dict[str, dict[int, bytes]]:
    """The same of pictures, as PNG."""
    images: dict[str, dict[int, bytes]] = defaultdict(dict)
    for step, value in _values(folder):
        if value.HasField("image"):
            images[value.tag][step] = value.image.encoded_image_string
    return dict(images)


def _values(folder: Path) -> Iterator[tuple[int, Any]]:
    for path in sorted(folder.glob("events.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):  # a record: length, its checksum, event, its checksum
            (length,) = struct.unpack_from("<Q", content, position)
            event = Event.FromString(content[position + 12 : position + 12 + length])
            for value in event.summary.value:
                yield event.step, value
            position += 12 + length + 4
