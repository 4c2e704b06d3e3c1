"""Tasks to correct come back with the words and documents of their texts, whatever the text is cut into."""

from pathlib import Path

import pytest

from common.entities import Entity
from processors.corpus import Corpus
from processors.examples import Example
from processors.formats.corrections import CORRECTIONS, Correction
from processors.formats.writers import FORMATS

EXAMPLES = [
    Example("a", ["U.N.", "'s", "\U0001f600", "New", "York", "-", "based"], [Entity("LOC", 3, 4)], document="one"),
    Example("b", ["It", "left"], [], document="one"),
    Example("c", ["Big", "Rome", "Co"], [Entity("ORG", 0, 2), Entity("LOC", 1, 1)], document="two"),
    Example("d", ["\u5f20", "\u4e09"], [Entity("PER", 0, 1)]),
]


@pytest.mark.parametrize("tool", CORRECTIONS)
def test_nothing_is_lost(tool: str, tmp_path: Path) -> None:
    predicted = Example("a", EXAMPLES[0].words, [Entity("ORG", 3, 4)], confidences=[0.75])
    corrections = [Correction(EXAMPLES[0], predicted, 0.9, "LOC: New York -> ORG: New York")]
    corrections += [Correction(example) for example in EXAMPLES[1:]]
    path = tmp_path / f"train{CORRECTIONS[tool].suffix}"
    assert not CORRECTIONS[tool].write(corrections, path).counts
    corpus = Corpus("", tmp_path, offset_unit="utf16" if tool == "doccano_utf16" else "auto")
    read = list(corpus.examples("train"))
    for one, example in zip(read, EXAMPLES, strict=True):
        assert (one.guid, one.words, one.entities) == (example.guid, example.words, example.entities)
        assert (one.text, one.document) == (example.text, example.document)


def test_columns_with_documents_become_json_with_documents(tmp_path: Path) -> None:
    FORMATS["jsonl"].write(EXAMPLES, tmp_path / "train.jsonl")
    read = list(Corpus("", tmp_path).examples("train"))
    assert [one.document for one in read] == ["one", "one", "two", ""]
    assert [one.entities for one in read] == [one.entities for one in EXAMPLES]
