"""Each condition of the benchmark of partial labels has the texts that it promises, and a row in the table."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.partial_labels import (
    CONDITIONS,
    PartialLabelOptions,
    Source,
    chosen_conditions,
    with_steps_of,
)
from common.entities import Entity
from models import BertCrfForNer
from processors.corpus import Corpus
from processors.examples import Example
from tests.benchmarks.test_benchmarks import table_of
from tests.helpers import ROOT, write_corpus
from tests.tools.runs import flags, options_of_run, read_json
from tools.settings import Settings

OPTIONS = PartialLabelOptions(half_types="PER,LOC")


@pytest.fixture(scope="module")
def source() -> Source:
    """The bundled sample, its texts in documents of three."""
    corpus = Corpus("sample", ROOT / "datasets" / "sample")
    texts = [dataclasses.replace(one, document=f"document {n // 3}") for n, one in enumerate(corpus.examples("train"))]
    return Source(texts[:600], corpus.entity_types(), OPTIONS)


def texts_of(condition: str, source: Source) -> list[Example]:
    return CONDITIONS[condition].texts(source)


def entities(examples: list[Example]) -> list[list[Entity]]:
    return [one.entities or [] for one in examples]


def test_the_texts_of_a_condition_are_the_same_each_time_and_leave_the_source_alone(source: Source) -> None:
    before = [dataclasses.replace(one) for one in source.examples]
    for name in CONDITIONS:
        assert texts_of(name, source) == texts_of(name, source)
    assert source.examples == before == texts_of("full", source)
    other = source._replace(options=dataclasses.replace(OPTIONS, data_seed=1))
    assert texts_of("missing_known", source) != texts_of("missing_known", other)


def test_each_half_has_its_types(source: Source) -> None:
    known, as_outside = texts_of("halves_known", source), texts_of("halves_as_outside", source)
    first, second = frozenset({"PER", "LOC"}), frozenset({"ORG", "PRO", "TIME"})
    for own, whole in zip(known, source.examples, strict=True):
        assert own.complete in (first, second)
        assert own.entities == [one for one in whole.entities or () if one.type in (own.complete or ())]
    assert [dataclasses.replace(one, complete=None) for one in known] == as_outside
    types_of_document = {(one.document, one.complete) for one in known}
    assert Counter(types for _, types in types_of_document) == {first: 100, second: 100}  # no document in both


def test_by_default_every_other_type_by_frequency(source: Source) -> None:
    counts = Counter(one.type for texts in entities(list(source.examples)) for one in texts)
    by_frequency = [name for name, _ in counts.most_common()]
    texts = texts_of("halves_known", source._replace(options=PartialLabelOptions()))
    assert {one.complete for one in texts} == {frozenset(by_frequency[::2]), frozenset(by_frequency[1::2])}


@pytest.mark.parametrize("types", ["PER,FOO", "LOC,ORG,PER,PRO,TIME"])
def test_wrong_types_of_a_half(source: Source, types: str) -> None:
    with pytest.raises(ValueError, match="expected some of LOC, ORG, PER, PRO, TIME, not all"):
        texts_of("halves_known", source._replace(options=PartialLabelOptions(half_types=types)))


def test_half_of_the_entities_are_missing(source: Source) -> None:
    as_outside, known = texts_of("missing_as_outside", source), texts_of("missing_known", source)
    assert as_outside == known  # they differ in the settings
    assert CONDITIONS["missing_known"].settings == {"missing_entities": True}
    whole = entities(list(source.examples))
    for left, all_of_it in zip(entities(known), whole, strict=True):
        assert left == [one for one in all_of_it if one in left]
    assert sum(map(len, entities(known))) == pytest.approx(sum(map(len, whole)) / 2, abs=1)
    assert all(one.complete is None for one in known)


def test_texts_that_a_dictionary_labels() -> None:
    texts = [
        Example("0", ["rome"], [Entity("LOC", 0, 0)]),
        *(Example(str(n), ["rome", "of", "york"], [Entity("ORG", 0, 2)]) for n in range(1, 4)),
        *(Example(str(n), ["so", "rome", "of", "york", "saw", "rome"], [Entity("PER", 0, 0)]) for n in range(4, 8)),
    ]
    source = Source(texts, ["LOC", "ORG", "PER"], PartialLabelOptions(labelled=0.5))
    seed = next(n for n in range(10_000) if few_of(source, n) == ["0", "1", "2", "3"])
    source = source._replace(options=dataclasses.replace(source.options, data_seed=seed))
    assert texts_of("few", source) == texts[:4]
    found = texts_of("dictionary_only", source)
    assert entities(found) == [[Entity("ORG", 1, 3), Entity("LOC", 5, 5)]] * 4
    assert texts_of("both_as_outside", source) == texts[:4] + found
    known = texts_of("both_known", source)
    assert [one.complete for one in known] == [frozenset({"LOC", "ORG", "PER"})] * 4 + [frozenset()] * 4
    assert [dataclasses.replace(one, complete=None) for one in known] == texts[:4] + found
    assert CONDITIONS["both_known"].settings == {"missing_entities": True}


def few_of(source: Source, seed: int) -> list[str]:
    """The texts that a seed leaves annotated."""
    seeded = source._replace(options=dataclasses.replace(source.options, data_seed=seed))
    return [one.guid for one in texts_of("few", seeded)]


def test_a_tenth_of_the_texts_is_annotated(source: Source) -> None:
    few, rest = texts_of("few", source), texts_of("dictionary_only", source)
    assert len(few) == 60
    assert sorted(one.guid for one in few + rest) == sorted(one.guid for one in source.examples)
    assert [one.guid for one in texts_of("both_known", source)] == [one.guid for one in source.examples]


def test_conditions_are_chosen_by_experiment_or_name() -> None:
    assert list(chosen_conditions("few,halves")) == ["full", "halves_as_outside", "halves_known", "few"]
    with pytest.raises(ValueError, match="--experiments half: expected some of halves, missing, dictionary, full"):
        chosen_conditions("half,few")


def test_as_many_steps_and_evaluations_on_few_texts() -> None:
    settings = Settings.of(BertCrfForNer.Options, num_train_epochs=3.0, per_gpu_train_batch_size=16)
    few = with_steps_of(1000, 100, settings)
    assert few.optimisation.num_train_epochs == 30
    assert few.logging.logging_steps == 63  # as after each epoch of all
    assert with_steps_of(1000, 1000, settings) == settings
    fixed = settings.replace(max_steps=5)
    assert with_steps_of(1000, 100, fixed) == fixed


def test_the_table(encoder: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 60, "dev": 5, "test": 20})
    home = tmp_path / "partial"
    options = {**options_of_run(encoder, corpus, tmp_path), "output_dir": home, "num_train_epochs": 1.0}
    options |= {"from_scratch": True, "evaluate_during_training": False, "report_to": "none"}
    own = [
        "--experiments",
        "missing",
        "both_known",
        "self_training",
        "--seeds",
        "1",
        "--train_share",
        "0.9",
        "--labelled",
        "0.2",
    ]
    printed = table_of("partial_labels", *flags(**options), *own)
    assert (home / "table.md").read_text("utf-8").strip() in printed
    assert "Test, seeds 1; intervals and p over 20 documents; as many steps on few texts as on all:" in printed
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    names = ["trained on", "---", "full", "missing_as_outside", "missing_known", "few", "both_known", "self_training"]
    assert [row[0] for row in cells] == [
        *names,
        "variant",
        "---",
        "missing_known",
        *["both_known"] * 1,
        *["self_training"] * 2,
    ]
    assert [row[1] for row in cells[2:8]] == ["54", "54", "54", "11", "54", str(5 * 11 + 43)]
    results = read_json(home / "results.json")
    for name in names[2:]:
        scored = read_json(home / name / "seed_1" / "test_results.json")
        assert results["conditions"][name]["f1"] == pytest.approx([100 * scored["f1"]])
    steps = [results["conditions"][name]["steps"] for name in names[2:]]
    assert steps[0] == steps[1] == steps[2] == steps[4] == 7
    assert steps[5] in (7, 8)
    assert steps[3] in (8, 9, 10)  # whole batches of fewer texts
    assert [(one["first"], one["second"]) for one in results["differences"]] == [
        *((name, "full") for name in names[3:]),
        ("missing_known", "missing_as_outside"),
        ("both_known", "few"),
        ("self_training", "few"),
        ("self_training", "both_known"),
    ]
    weights = {path: path.stat().st_mtime_ns for path in home.rglob("model.safetensors")}
    assert len(weights) == 6
    assert table_of("partial_labels", *flags(**options), *own).endswith(printed[-500:])  # nothing is trained again
    assert {path: path.stat().st_mtime_ns for path in home.rglob("model.safetensors")} == weights
    own[own.index("0.9")] = "0.8"
    with pytest.raises(AssertionError, match=re.escape("has runs with --train_share 0.9; choose another --output_dir")):
        table_of("partial_labels", *flags(**options), *own)
