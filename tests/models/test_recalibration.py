"""Confidences that take into account what the training data know of an entity."""

import json
import math

import numpy as np
import pytest
from transformers import BertConfig

from common.entities import Entity
from models.recalibration import Familiarity, Recalibration, TrainingEntities, forget_calibration, logit

TEXTS = [
    (["Anna", "lives", "in", "New", "York"], [Entity("PER", 0, 0), Entity("LOC", 3, 4)]),
    (["Jordan", "won"], [Entity("PER", 0, 0)]),
    (["unlabelled"], []),
]
SEEN = ["to", "New", "York", "Jordan", "York", "anna"]
EXPECTED = {
    Entity("LOC", 1, 2): Familiarity.KNOWN,
    Entity("PER", 3, 3): Familiarity.KNOWN,
    Entity("LOC", 3, 3): Familiarity.OTHER_TYPE,
    Entity("ORG", 1, 2): Familiarity.OTHER_TYPE,
    Entity("LOC", 4, 4): Familiarity.NEW,
    Entity("PER", 5, 5): Familiarity.NEW,
    Entity("LOC", 0, 2): Familiarity.NEW,
}


@pytest.fixture(scope="module")
def known() -> TrainingEntities:
    return TrainingEntities.collect(TEXTS)


def test_familiarity_is_that_of_the_name_and_of_its_type(known: TrainingEntities) -> None:
    assert len(known) == 6  # three names, each also with its type
    assert {one: known.familiarity(SEEN, one) for one in EXPECTED} == EXPECTED


def test_nothing_is_familiar_without_training_entities() -> None:
    empty = TrainingEntities.collect([])
    assert {empty.familiarity(SEEN, one) for one in EXPECTED} == {Familiarity.NEW}
    assert len(TrainingEntities.decoded(empty.encoded())) == 0


def test_a_config_keeps_the_digests_but_no_name(known: TrainingEntities) -> None:
    config = BertConfig()
    config.recalibration = Recalibration(known, [(0.5, -1.0), (0.25, -2.0), (1.5, 1.0)]).as_config()
    text = config.to_json_string()
    assert "Anna" not in text
    assert "York" not in text
    restored = Recalibration.of(BertConfig.from_dict(json.loads(text)))
    assert restored is not None
    assert restored.curves == [(0.5, -1.0), (0.25, -2.0), (1.5, 1.0)]
    assert {one: restored.entities.familiarity(SEEN, one) for one in EXPECTED} == EXPECTED


def test_each_familiarity_has_its_curve(known: TrainingEntities) -> None:
    recalibrated = Recalibration(known, [(0.5, -1.0), (0.25, -2.0), (1.5, 1.0)])
    entities, probabilities = list(EXPECTED), [0.9, 0.6, 0.3, 0.99, 0.5, 0.0, 1.0]
    found = recalibrated(SEEN, entities, probabilities)
    for entity, before, after in zip(entities, probabilities, found, strict=True):
        slope, intercept = recalibrated.curves[EXPECTED[entity]]
        if 0 < before < 1:
            odds = math.exp(intercept) * (before / (1 - before)) ** slope
            assert after == pytest.approx(odds / (1 + odds))
        assert 0 < after < 1
    assert recalibrated([], [], []) == []
    assert recalibrated.least_before(0.001) == 1e-6
    for least in (0.05, 0.3, 0.9):
        lowest = recalibrated.least_before(least)
        assert max(recalibrated(SEEN, entities, [lowest] * len(entities))) == pytest.approx(least)


def test_log_odds_of_certain_predictions_are_finite() -> None:
    low, even, high = logit(np.array([0.0, 0.5, 1.0]))
    assert (low, even) == (pytest.approx(-high), 0)
    assert 10 < high < 20


def test_training_from_a_calibrated_model_starts_without_corrections(known: TrainingEntities) -> None:
    config = BertConfig()
    config.recalibration = Recalibration(known, [(1.0, 0.0)] * 3).as_config()
    config.confidence_temperatures = [2.0, 1.0]
    forget_calibration(config)
    assert Recalibration.of(config) is None
    assert "confidence_temperatures" not in config.to_dict()
    forget_calibration(config)  # nothing to forget
