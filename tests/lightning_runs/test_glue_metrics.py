"""GLUE's metrics against their definitions."""

import math

import numpy as np
import pytest

from lightning_runs.glue_data import GLUE_TASKS
from lightning_runs.glue_model import glue_scores

GOLD = np.array([1, 1, 1, 0, 0, 1, 0, 1], float)
FOUND = np.array([1, 0, 1, 0, 1, 1, 0, 1], float)
TP, TN, FP, FN = 4, 2, 1, 1


def test_accuracy_and_f1_of_the_pairs_that_say_the_same() -> None:
    f1 = 2 * TP / (2 * TP + FP + FN)
    assert glue_scores("mrpc", GOLD, FOUND) == pytest.approx({"acc": 0.75, "f1": f1, "acc_and_f1": (0.75 + f1) / 2})


def test_matthews_correlation() -> None:
    expected = (TP * TN - FP * FN) / math.sqrt((TP + FP) * (TP + FN) * (TN + FP) * (TN + FN))
    assert glue_scores("CoLA", GOLD, FOUND) == pytest.approx({"mcc": expected})
    assert glue_scores("cola", GOLD, np.ones(8)) == {"mcc": 0.0}


def test_correlations_of_scores() -> None:
    gold, found = np.array([0.0, 1.0, 2.0, 5.0]), np.array([0.0, 1.0, 4.0, 9.0])
    expected = float(np.corrcoef(gold, found)[0, 1])
    scores = glue_scores("sts-b", gold, found)
    assert scores == pytest.approx({"pearson": expected, "spearmanr": 1.0, "corr": (expected + 1) / 2})


def test_a_constant_prediction_does_not_correlate() -> None:
    assert glue_scores("sts-b", np.arange(3.0), np.ones(3)) == {"pearson": 0.0, "spearmanr": 0.0, "corr": 0.0}


@pytest.mark.parametrize("task", [name for name in GLUE_TASKS if name != "sts-b"])
def test_every_task_has_metrics_that_reach_one(task: str) -> None:
    assert set(glue_scores(task, GOLD, GOLD).values()) == {1.0}
