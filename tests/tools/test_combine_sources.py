"""Combining sources from the command line, and the dictionaries for it."""

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from common.entities import Entity, outermost
from processors.corpus import Corpus
from processors.examples import Example
from tests.tools.runs import read_json
from tools import combine_sources, make_gazetteer
from tools.script import run_script

TYPES = ["LOC", "ORG", "PER"]


def combine(output: Path, *words: object) -> list[Example]:
    """The texts that are written."""
    with patch.object(sys, "argv", ["combine_sources", *map(str, words), "--output", str(output)]):
        run_script(combine_sources.main)
    return list(Corpus("", split_files={"train": output}).examples("train"))


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    return path


def erring(entities: list[Entity], words: int, errors: float, drawn: random.Random) -> list[list[Any]]:
    """Entities of a source that misses, retypes, moves and invents some."""
    said = []
    for kind, first, last in entities:
        if drawn.random() > errors:
            kind = drawn.choice(TYPES) if drawn.random() < errors else kind
            last = min(last + (drawn.random() < errors), words - 1)
            said.append(Entity(kind, first, last))
    said += [Entity(drawn.choice(TYPES), word, word) for word in range(words) if drawn.random() < errors / 10]
    return [[first, last + 1, kind] for kind, first, last in outermost(said)]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Entity]]]:
    """A file of three sources, the best first, and the true entities."""
    drawn, records, true = random.Random(0), [], []
    for number in range(400):
        words = [f"w{number}-{place}" for place in range(12)]
        firsts = [place for place in (0, 3, 6, 9) if drawn.random() < 0.6]
        true.append([Entity(drawn.choice(TYPES), first, first + drawn.randint(0, 1)) for first in firsts])
        said = {name: erring(true[-1], 12, rate, drawn) for name, rate in (("a", 0.05), ("b", 0.08), ("c", 0.15))}
        records.append({"id": f"t{number}", "tokens": words, "sources": said})
    return write(tmp_path_factory.mktemp("simulated") / "layers.jsonl", *records), true


def f1(found: list[list[Entity]], true: list[list[Entity]]) -> float:
    right = sum(len(set(one) & set(other)) for one, other in zip(found, true, strict=True))
    return 2 * right / (sum(map(len, found)) + sum(map(len, true)))


def test_combined_labels_are_better_than_those_of_the_majority(
    simulated: tuple[Path, list[list[Entity]]], tmp_path: Path
) -> None:
    path, true = simulated
    sources = [json.loads(line)["sources"] for line in path.read_text().splitlines()]
    of_source = {
        name: [[Entity(kind, first, end - 1) for first, end, kind in one[name]] for one in sources] for name in "abc"
    }
    votes = [Counter(entity for name in "abc" for entity in of_source[name][text]) for text in range(len(true))]
    majority = [[entity for entity, count in one.items() if count > 1] for one in votes]
    texts = combine(tmp_path / "half.jsonl", path, "--threshold", 0.5)
    assert [one.guid for one in texts] == [f"t{number}" for number in range(400)]
    combined = f1([one.entities or [] for one in texts], true)
    assert combined > max(f1(majority, true), f1(of_source["a"], true)) + 0.01
    sure = combine(tmp_path / "sure.jsonl", path, "--threshold", "0.95")
    report = read_json(tmp_path / "sure.sources.json")
    unknown = sum(12 - one.annotation.annotated_words for one in sure)
    assert 0 < unknown == report["unknown_words"] < 1000
    right = [entity in true[text] for text, one in enumerate(sure) for entity in one.entities or ()]
    assert sum(right) / len(right) > 0.98
    assert all(one.complete is None for one in sure)
    for name, found in report["sources"].items():
        matches = sum(len(set(one) & set(other)) for one, other in zip(of_source[name], true, strict=True))
        assert found["precision"] == pytest.approx(matches / sum(map(len, of_source[name])), abs=0.06)
        assert found["recall"] == pytest.approx(matches / sum(map(len, true)), abs=0.06)
        assert found["spans"] == sum(map(len, of_source[name])) == sum(one["spans"] for one in found["types"].values())
    assert sum(report["spans"].values()) == len({(text, *one[1:]) for text, said in enumerate(votes) for one in said})
    assert [one["sources"] for one in report["conflicts"]] == [["a", "b"], ["a", "c"], ["b", "c"]]


def test_gold_stays_and_what_no_source_saw_is_unknown(tmp_path: Path) -> None:
    words = ["Anna", "met", "Bob", "in", "Rome"]
    seen = {"spans": [[0, 1, "PER"]], "annotated": [[0, 2]]}
    path = write(
        tmp_path / "x.jsonl",
        {"tokens": words, "tags": ["O", "O", "B-PER", "O", "B-LOC"], "sources": {"a": [[0, 1, "PER"]]}},
        {"tokens": words[:4], "sources": {"a": seen}},
        {"tokens": words[:3]},
        {"tokens": words[1:], "tags": ["O", "?", "O", "O"], "sources": {"a": [[1, 2, "PER"]]}},
    )
    texts = combine(tmp_path / "out.jsonl", path, "--reliability", "a=0.95")
    assert [one.entities for one in texts] == [
        [Entity("PER", 2, 2), Entity("LOC", 4, 4)],
        [Entity("PER", 0, 0)],
        [Entity("PER", 1, 1)],
    ]
    assert [one.unannotated for one in texts] == [[], [(2, 3)], []]
    report = read_json(tmp_path / "out.sources.json")
    assert report["dropped"] == {"texts that no source looked at, left out": 1}
    assert (report["texts"], report["sources"]["a"]["texts"]) == (3, 3)


def test_a_dictionary_finds_some_entities_and_leaves_others_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [{"text": f"{name} met Paris Hilton in {place}"} for name in ("Anna", "Bob") for place in ("Rome", "rome")]
    path = write(tmp_path / "texts.jsonl", *texts)
    table = tmp_path / "names.tsv"
    table.write_text("Anna\tPER\nRome\tLOC\nParis Hilton\tPER\nParis Hilton\tLOC\nParis\tLOC\n", "utf-8")
    options = ["--gazetteer", table, "--reliability", "names=0.9,0.4"]
    found = combine(tmp_path / "open.jsonl", path, *options, "--threshold", 0.8)
    assert Entity("PER", 0, 0) in (found[0].entities or ())
    assert [one.unannotated for one in found] == [[(2, 3)]] * 4  # a person or a place
    assert [one.complete for one in found] == [frozenset()] * 4
    assert [Entity("LOC", 5, 5) in (one.entities or ()) for one in found] == [True, False] * 2
    found = combine(tmp_path / "all.jsonl", path, *options, "--threshold", 0.8, "--max_missed", 0.7, "--ignore_case")
    assert [one.complete for one in found] == [None] * 4
    assert [Entity("LOC", 5, 5) in (one.entities or ()) for one in found] == [True] * 4
    found = combine(tmp_path / "loc.jsonl", path, *options, "--threshold", 0.8, "--source_types", "names=LOC")
    assert {one.type for text in found for one in text.entities or ()} == {"LOC"}
    report = read_json(tmp_path / "loc.sources.json")
    assert report["dropped"] == {"entities of names that are not of its --source_types": 6}
    assert "does not tell which is right" not in capsys.readouterr().err
    combine(tmp_path / "alone.jsonl", path, "--gazetteer", table)
    assert "The agreement of 1 sources does not tell which is right" in capsys.readouterr().err


def test_texts_without_entities_or_words_are_no_trouble(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "", "sources": {"a": []}}, {"text": "so it is", "sources": {"a": []}})
    assert [one.entities for one in combine(tmp_path / "out.jsonl", path)] == [[], []]


def test_entities_may_nest_only_if_that_is_asked_for(tmp_path: Path) -> None:
    said = [[0, 15, "ORG"], [8, 15, "LOC"]]
    path = write(tmp_path / "x.jsonl", {"text": "Bank of England met", "sources": {"a": said, "b": said, "c": said}})
    (flat,) = combine(tmp_path / "flat.jsonl", path)
    assert flat.entities == [Entity("ORG", 0, 2)]
    dropped = read_json(tmp_path / "flat.sources.json")["dropped"]
    assert dropped["entities of a that overlap longer ones, left out (--nested keeps them)"] == 1
    (nested,) = combine(tmp_path / "nested.jsonl", path, "--nested", "--threshold", 0.7)
    assert nested.entities == [Entity("ORG", 0, 2), Entity("LOC", 2, 2)]


@pytest.mark.parametrize(
    ("options", "entities"),
    [
        (["--span_edges", "drop"], []),
        (["--span_edges", "snap"], [Entity("PER", 0, 0)]),
        (["--word_unit", "char"], [Entity("PER", 1, 3)]),
        (["--offset_unit", "utf16", "--word_unit", "char"], [Entity("PER", 0, 2)]),
    ],
)
def test_texts_are_read_as_elsewhere(options: list[str], entities: list[Entity], tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl", {"text": "\U0001d400nna met", "sources": {name: [[1, 4, "PER"]] for name in "abc"}}
    )
    if "utf16" in options:
        path = write(path, {"text": "\U0001d400nna met", "sources": {name: [[0, 4, "PER"]] for name in "abc"}})
    assert [one.entities for one in combine(tmp_path / "out.jsonl", path, *options)] == [entities]


def test_what_is_wrong_with_options_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "Anna", "sources": {"a": []}})
    with pytest.raises(SystemExit, match=r"--reliability b: there is no such source; there are a; --source_types c: "):
        combine(tmp_path / "out", path, "--reliability", "b=0.5", "--source_types", "c=X")
    with pytest.raises(SystemExit):
        combine(tmp_path / "out", path, "--reliability", "b=2", "a=x", "a", "--source_types", "a", "--threshold", 0.4)
    said = capsys.readouterr().err
    assert said.count("must be NAME=SHARE or NAME=PRECISION,RECALL") == 1
    assert "must be NAME=TYPE,TYPE" in said
    assert "--threshold 0.4: must be a number, at least 0.5" in said
    with pytest.raises(SystemExit, match='no text has "sources" or an annotation'):
        combine(tmp_path / "out", write(tmp_path / "y.jsonl", {"text": "Anna"}))
    with pytest.raises(SystemExit, match=r"x\.jsonl: already exists"):
        combine(path, path)
    (tmp_path / "a.tsv").write_text("Anna\tPER\n", "utf-8")
    with pytest.raises(SystemExit, match="--gazetteer a: a source has this name"):
        combine(tmp_path / "out", path, "--gazetteer", tmp_path / "a.tsv")


def test_a_dictionary_is_made_from_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, out = tmp_path / "train.txt", tmp_path / "new" / "types.tsv"
    corpus.write_text("Anna B-PER\nand O\nMay B-PER\n\nMay O\n, O\nanna O\n\nMay O\n", "utf-8")

    def make(*words: object) -> list[str]:
        out.unlink(missing_ok=True)
        with patch.object(sys, "argv", ["make_gazetteer", str(corpus), str(out), *map(str, words)]):
            run_script(make_gazetteer.main)
        return out.read_text("utf-8").splitlines()

    assert make() == ["Anna\tPER\t1.0000"]
    assert "types.tsv; 1 with a share below 0.5 left out" in capsys.readouterr().err
    assert make("--min_share", 0) == ["Anna\tPER\t1.0000", "May\tPER\t0.3333"]
    assert make("--ignore_case") == ["Anna\tPER\t0.5000"]
    with pytest.raises(SystemExit, match="already exists"), patch.object(Path, "unlink"):
        make()
