"""Texts and pictures in TensorBoard's event files."""

from collections import defaultdict
from pathlib import Path

from analysis.report.run_data import event_values


def read_texts(folder: Path) -> dict[str, dict[int, str]]:
    """The text of each tag at each step, of all event files of a folder."""
    texts: dict[str, dict[int, str]] = defaultdict(dict)
    for step, value in event_values(folder):
        if value.tag.endswith("/text_summary"):
            texts[value.tag.removesuffix("/text_summary")][step] = value.tensor.string_val[0].decode()
    return dict(texts)


def read_images(folder: Path) -> dict[str, dict[int, bytes]]:
    """The PNG of each picture at each step."""
    images: dict[str, dict[int, bytes]] = defaultdict(dict)
    for step, value in event_values(folder):
        if value.HasField("image"):
            images[value.tag][step] = value.image.encoded_image_string
    return dict(images)
