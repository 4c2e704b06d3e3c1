"""What docs/data.md and docs/annotation.md show is read as they say."""

import re
from pathlib import Path

import pytest

from processors.corpus import Corpus
from processors.formats.writers import FORMATS
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.S | re.M)
BRAT = BLOCKS[-1][1]


def entities_of(path: Path) -> list[tuple[str, str]]:
    """Types and surfaces of all that the train split holds."""
    found = []
    for example in Corpus("", split_files={"train": path}, span_edges="error").examples("train"):
        text, offsets = example.text or "", example.offsets or []
        for kind, first, last in example.entities or []:
            found.append((kind, text[offsets[first][0] : offsets[last][1]]))
    return found


@pytest.mark.parametrize(("language", "block"), BLOCKS[:-1], ids=[block[:40] for _, block in BLOCKS[:-1]])
def test_each_example_is_read(tmp_path: Path, language: str, block: str) -> None:
    path = tmp_path / ("train.json" if language == "json" else "train.txt")
    path.write_text(block, "utf-8")
    chinese = {"呼": {("equ", "呼吸机"), ("dis", "肺炎")}, "江": {("nr", "江泽民"), ("ns", "北京")}}
    assert set(entities_of(path)) == chinese.get(block[0], {("PER", "Anna"), ("LOC", "Paris")})


def test_the_example_of_brat_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.ann").write_text(BRAT, "utf-8")
    (tmp_path / "a.txt").write_text("Anna lives in New\nYork", "utf-8")
    assert entities_of(tmp_path) == [("PER", "Anna"), ("LOC", "New\nYork")]


def test_every_format_that_is_written_is_named() -> None:
    page = (ROOT / "docs" / "annotation.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in FORMATS)
