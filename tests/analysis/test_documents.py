"""Scored documents and their file."""

import json
from pathlib import Path

import pytest

from analysis.documents import count_entities, digest_of, read_documents, write_documents
from tests.analysis.documents import scored


def test_right_predicted_and_gold_entities_are_counted_by_document() -> None:
    documents = [scored("PER 0 0, LOC 2 3", "PER 0 0, LOC 2 2, ORG 5 5"), scored("", ""), scored("PER 0 0", "LOC 0 0")]
    assert count_entities(documents).tolist() == [[1, 3, 2], [0, 0, 0], [0, 1, 1]]
    assert count_entities([]).shape == (0, 3)


def test_the_surface_is_the_words() -> None:
    document = scored("PER 1 2", "", words="so dan lee left")
    assert document.surface(document.gold[0]) == "dan lee"


@pytest.mark.parametrize("words", ["他 说 🎉", "lone \ud83d half", 'a "quote" \\'])
def test_what_is_written_is_read(words: str, tmp_path: Path) -> None:
    documents = [scored("PER 0 0", "LOC 1 2", words=words), scored("", "", words="")]
    write_documents(tmp_path / "documents.jsonl", documents)
    readable = scored("PER 0 0", "LOC 1 2", words=words.replace("\ud83d", "\ufffd"))
    assert read_documents(tmp_path / "documents.jsonl") == [readable, documents[1]]


def test_files_of_the_first_version_are_read_and_of_later_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "eval_documents.jsonl"
    first = {"id": "a", "words": ["dan", "lee"], "gold": [["PER", 0, 2]], "predicted": [["PER", 0, 1], ["LOC", 1, 2]]}
    path.write_text(json.dumps({**first, "confidences": [0.5, 0.25]}) + "\n" + json.dumps(first) + "\n")
    document = scored("PER 0 1", "PER 0 0, LOC 1 1", words="dan lee", guid="a")
    assert read_documents(path) == [document._replace(confidences=(0.5, 0.25)), document]
    write_documents(path, [document])
    record = json.loads(path.read_text())
    assert (record["format_version"], record["gold"]) == (2, [{"type": "PER", "first_word": 0, "last_word": 1}])
    path.write_text(json.dumps({**record, "format_version": 3}))
    with pytest.raises(ValueError, match=r"eval_documents\.jsonl:1: format_version 3"):
        read_documents(path)


def test_the_digest_tells_texts_and_gold_entities_apart_and_nothing_else() -> None:
    one = [scored("PER 0 0", "")]
    assert digest_of(one) == digest_of([scored("PER 0 0", "LOC 3 3", guid="2")])
    others = [scored("LOC 0 0", ""), scored("PER 0 0", "", words="a b c"), scored("", "")]
    assert len({digest_of([other]) for other in [*one, *others]} | {digest_of([*one, *one])}) == 5
