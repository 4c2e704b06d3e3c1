"""Several corpora as one: their texts, types, and what is wrong with the file that names them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from common.entities import Entity
from processors.corpora import Corpora, read_corpora
from processors.examples import DataError

COLUMNS = {"genes": "p53 B-GENE\nhelps O\n\nbrca O\n", "drugs": "aspirin B-DRUG\nhelps B-EFFECT\n"}


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, dict[str, Any]]:
    for name, text in COLUMNS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.txt").write_text(text)
    (tmp_path / "drugs" / "test.txt").write_text("ibuprofen\n")
    return {name: {"data_dir": name} for name in COLUMNS}


def of(tmp_path: Path, entries: dict[str, Any]) -> Corpora:
    path = tmp_path / "corpora.yaml"
    path.write_text(yaml.safe_dump(entries))
    return read_corpora(path, "mine", cache_dir=tmp_path / "cache")


def test_each_corpus_is_complete_for_its_own_types(tmp_path: Path, entries: dict[str, Any]) -> None:
    corpora = of(tmp_path, entries)
    assert corpora.entity_types() == ["DRUG", "EFFECT", "GENE"]
    drugs, first, second = sorted(corpora.examples("train"), key=lambda one: one.guid)
    assert [one.guid for one in (drugs, first, second)] == ["drugs/train-0", "genes/train-0", "genes/train-1"]
    assert (drugs.complete, first.complete) == (frozenset({"DRUG", "EFFECT"}), frozenset({"GENE"}))
    assert second.complete == first.complete
    assert first.entities == [Entity("GENE", 0, 0)]
    assert (corpora.inventory("train").sentences, corpora.inventory("train").incomplete) == (3, 3)
    assert [(corpora.has(split)) for split in ("train", "dev", "test")] == [True, False, True]
    (raw,) = corpora.examples("test")
    assert (raw.guid, raw.entities, raw.complete) == ("drugs/test-0", None, None)
    with pytest.raises(DataError, match=r"corpora\.yaml: none of the corpora has a dev split"):
        corpora.inventory("dev")


def test_types_are_renamed_and_may_be_named(tmp_path: Path, entries: dict[str, Any]) -> None:
    entries["drugs"] |= {"rename": {"DRUG": "GENE", "EFFECT": "GENE"}}
    merged = of(tmp_path, entries)
    assert merged.entity_types() == ["GENE"]
    assert [one.complete for one in merged.examples("train")] == [None] * 3  # all corpora have all types
    entries["drugs"] = {"data_dir": "drugs", "types": []}
    assert {one.complete for one in of(tmp_path, entries).examples("train")} == {frozenset(), frozenset({"GENE"})}
    entries["drugs"] = {"data_dir": "drugs", "types": ["DRUG"]}
    named = {one.guid: one.complete for one in of(tmp_path, entries).examples("train")}
    assert named["drugs/train-0"] == frozenset({"DRUG"})


def test_what_changes_the_texts_changes_their_digest(tmp_path: Path, entries: dict[str, Any]) -> None:
    digests = {of(tmp_path, entries).digest("train")}
    for changes in ({"rename": {"DRUG": "D"}}, {"types": ["DRUG"]}):
        digests.add(of(tmp_path, entries | {"drugs": entries["drugs"] | changes}).digest("train"))
    assert len(digests) == 3
    assert of(tmp_path, entries | {"genes": entries["genes"] | {"weight": 2}}).digest("train") in digests


def test_all_that_is_wrong_is_told_together(tmp_path: Path, entries: dict[str, Any]) -> None:
    wrong: dict[str, Any] = {
        "a/b": entries["genes"],
        "b": {"folder": "genes"},
        "c": entries["genes"] | {"weight": 0, "types": "GENE", "rename": ["GENE"]},
        "d": None,
    }
    with pytest.raises(DataError) as caught:
        of(tmp_path, wrong)
    for message in (
        "a/b: the name of a corpus is a word without a slash",
        "b: folder: expected data_dir, train_file,",
        "b: names no data_dir, dataset_name or train_file",
        "c: weight is 0, expected a positive number",
        "c: types is 'GENE', expected a list of entity types",
        "c: rename is ['GENE'], expected a mapping of old to new names of types",
        "d: expected settings such as data_dir, found None",
    ):
        assert f"{tmp_path / 'corpora.yaml'}: {message}" in str(caught.value)
    with pytest.raises(DataError, match="e: nowhere: there is no such data folder"):
        of(tmp_path, entries | {"e": {"data_dir": "nowhere"}})
    with pytest.raises(DataError, match="cannot be read as YAML"):
        read_corpora(tmp_path / "missing.yaml", "mine")
    unknown = entries | {"drugs": {"data_dir": "drugs", "types": ["DRGU"], "rename": {"X": "Y"}}}
    with pytest.raises(DataError) as caught:
        of(tmp_path, unknown).inventory("train")
    assert "drugs: types DRGU are found in no corpus (DRUG, EFFECT, GENE)" in str(caught.value)
    assert "drugs: rename: X is none of its types (DRUG, EFFECT)" in str(caught.value)
