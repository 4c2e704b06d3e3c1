"""The dial: curves against counting, thresholds that reach what is asked, and guarantees that hold in resamples."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.dial import ASKED, LEAST, Candidates, Dial, Dials
from common.entities import Entity

ENTITIES = [Entity(name, word, word) for name in ("PER", "LOC") for word in range(3)]
probable = st.sampled_from([LEAST, 0.1, 0.2, 0.5, 0.7, 0.9, 1.0])


@st.composite
def texts(draw: st.DrawFn) -> list[Candidates]:
    found = draw(st.lists(st.dictionaries(st.sampled_from(ENTITIES), probable), min_size=1, max_size=6))
    gold = [draw(st.sets(st.sampled_from(ENTITIES))) for _ in found]
    return [
        Candidates(f"document {number // 2}", sorted(own), list(candidates.items()))
        for number, (own, candidates) in enumerate(zip(gold, found, strict=True))
    ]


def counted(documents: list[Candidates], threshold: float, name: str) -> list[int]:
    """Correct, predicted and gold entities of a type, or of all."""
    right = predicted = gold = 0
    for one in documents:
        kept = {entity for entity, value in one.found if value >= threshold and name in ("", entity.type)}
        wanted = {entity for entity in one.gold if name in ("", entity.type)}
        right, predicted, gold = right + len(kept & wanted), predicted + len(kept), gold + len(wanted)
    return [right, predicted, gold]


@given(documents=texts(), threshold=st.floats(LEAST, 1))
def test_curves_count_what_a_threshold_keeps(documents: list[Candidates], threshold: float) -> None:
    dial = Dial.of(documents, ["PER", "LOC", "never"])
    assert dial.types == ["PER", "LOC", "never"]
    for name, curve in dial.curves.items():
        assert curve.counts(threshold).tolist() == counted(documents, threshold, name)


def drawn(size: int, seed: int = 0, entities: int = 6, shift: float = 0.0) -> list[Candidates]:
    """Texts whose candidates are right as often as their probability says, or less often by ``shift``."""
    generator = np.random.default_rng(seed)
    documents = []
    for number in range(size):
        found, gold = [], []
        for word in range(entities):
            value = float(np.clip(generator.beta(2, 0.5), LEAST, 1))
            entity = Entity("PER" if word % 2 else "LOC", word, word)
            found.append((entity, value))
            if generator.random() < value - shift:
                gold.append(entity)
        documents.append(Candidates(f"{number}", gold, found))
    return documents


@pytest.mark.parametrize(("measure", "value"), ASKED)
def test_operating_points_reach_what_is_asked_on_other_texts(measure: str, value: float) -> None:
    dial, other = Dial.of(drawn(800), ["PER", "LOC"]), Dial.of(drawn(800, seed=1), ["PER", "LOC"])
    point = dial.operating_point(measure, value)
    assert getattr(point, measure) >= value - 1e-9
    measured = other.at(point.thresholds)
    assert getattr(measured, measure) == pytest.approx(getattr(point, measure), abs=0.02)
    least = 0.5 if measure == "precision" else LEAST
    assert all(least <= threshold <= 1 for threshold in point.thresholds.values())
    if measure == "recall":
        assert max(point.thresholds.values()) <= 0.5
    for name, threshold in point.thresholds.items():  # no more is given up than needed
        curve = dial.curves[name]
        nearer = [one for one in curve.thresholds if (one > threshold if measure == "recall" else one < threshold)]
        nearer = [one for one in nearer if (one <= 0.5 if measure == "recall" else one >= 0.5)]
        for one in nearer:
            right, predicted, gold = curve.counts(one)
            assert right / (gold if measure == "recall" else predicted) < value


def test_what_cannot_be_reached_gets_the_nearest() -> None:
    missed = [one._replace(gold=[*one.gold, Entity("PER", 90, 90)]) for one in drawn(50)]
    dial = Dial.of(missed, ["PER", "LOC"])
    point = dial.operating_point("recall", 1.0)
    assert point.recall < 1
    curve, threshold = dial.curves["PER"], point.thresholds["PER"]
    best = curve.counts(LEAST)[0]  # the most that can be found
    assert [curve.counts(one)[0] == best for one in (threshold, threshold + 1e-9)] == [True, False]
    wrong = [one._replace(gold=[]) for one in drawn(50)]
    point = Dial.of(wrong, ["PER", "LOC"]).operating_point("precision", 0.9)
    assert point.precision == 0
    assert all(threshold >= 0.5 for threshold in point.thresholds.values())


def test_rare_types_share_the_thresholds_of_all_types() -> None:
    rare = Candidates("rare", [Entity("RARE", 0, 0)], [(Entity("RARE", 0, 0), 0.03)])
    dial = Dial.of([*drawn(200), rare], ["PER", "LOC", "RARE"])
    point = dial.operating_point("recall", 0.95)
    assert point.thresholds["RARE"] == dial.overall.for_recall(0.95)
    assert point.thresholds["RARE"] > 0.03


@pytest.mark.parametrize(("measure", "value"), [("recall", 0.0), ("recall", 1.5), ("f1", 0.9), ("threshold", -1.0)])
def test_impossible_wishes_are_refused(measure: str, value: float) -> None:
    with pytest.raises(ValueError, match=measure):
        Dial.of(drawn(3), ["PER", "LOC"]).operating_point(measure, value)


def test_guarantees_hold_in_as_many_samples_as_they_say() -> None:
    """At 90 % certainty, at most a tenth of all samples may yield a threshold that misses too much."""
    share, generator = 0.1, np.random.default_rng(0)
    population = [np.array(one) for one in Dial.of(drawn(3000, seed=7), ["PER", "LOC"]).documents]
    thresholds = []
    for _ in range(80):
        chosen = [population[index].tolist() for index in generator.choice(len(population), 200, replace=False)]
        thresholds.append(Dial({}, chosen).threshold_for_missed(share, certainty=0.9))
    missed = [float(np.mean([np.mean(one < threshold) for one in population])) for threshold in thresholds]
    assert np.mean(np.array(missed) > share) <= 0.1
    assert np.mean(thresholds) > 0.2  # and they are of use
    assert np.mean(missed) > share / 3


def test_documents_and_not_texts_are_the_units_of_a_guarantee() -> None:
    of_one = [one._replace(document="one") for one in drawn(100)]
    assert len(Dial.of(of_one, ["PER", "LOC"]).documents) == 1
    assert len(Dial.of([one._replace(document="") for one in of_one], ["PER", "LOC"]).documents) > 90


def test_what_cannot_be_guaranteed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 5\.0% missed cannot be guaranteed .* in 5 documents"):
        Dial.of(drawn(5, entities=20), ["PER", "LOC"]).threshold_for_missed(0.05)
    with pytest.raises(ValueError, match="0 documents"):
        Dial.of([], ["PER"]).threshold_for_missed(0.5)


def test_files_hold_everything(tmp_path: Path) -> None:
    dials = Dials(Dial.of(drawn(400), ["PER", "LOC"]), Dial.of(drawn(300, seed=1), ["PER", "LOC"]))
    dials.write(tmp_path / "dial.json")
    read = Dials.read(tmp_path / "dial.json")
    assert read.rows(read) == dials.rows(dials)
    assert read.compatible.threshold_for_missed(0.1) == dials.compatible.threshold_for_missed(0.1)
    assert max(len(curve.thresholds) for curve in read.overlapping.curves.values()) <= 300
    later = json.loads((tmp_path / "dial.json").read_text()) | {"format_version": 99}
    (tmp_path / "dial.json").write_text(json.dumps(later))
    with pytest.raises(ValueError, match="format_version 99"):
        Dials.read(tmp_path / "dial.json")
