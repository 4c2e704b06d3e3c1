"""What docs/annotation.md shows is read as it says."""

import re
from pathlib import Path

import pytest

from processors.corpus import Corpus
from processors.tag_schemes import tags_to_entities
from processors.writers import FORMATS
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "annotation.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.S | re.M)
    return [content for name, content in fenced if name == language]


@pytest.mark.parametrize(("number", "texts"), [(0, 2), (1, 1)], ids=["doccano", "label_studio"])
def test_the_examples_in_json_are_read(tmp_path: Path, number: int, texts: int) -> None:
    (tmp_path / "train.json").write_text(blocks("json")[number], "utf-8")
    examples = list(Corpus("", tmp_path, span_edges="error").examples("train"))
    assert len(examples) == texts
    assert all(tags_to_entities(example.labels or [])[0] == ("PER", 0, 1) for example in examples)


def test_the_example_of_brat_is_read(tmp_path: Path) -> None:
    annotations = next(block for block in blocks("") if block.startswith("T1\t"))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.ann").write_text(annotations, "utf-8")
    (tmp_path / "train" / "a.txt").write_text("Anna lives in New\nYork", "utf-8")
    (example,) = Corpus("", tmp_path, span_edges="error").examples("train")
    assert tags_to_entities(example.labels or []) == [("PER", 0, 1), ("LOC", 3, 5)]


def test_every_format_is_named() -> None:
    assert all(f"`{name}`" in PAGE for name in FORMATS)
