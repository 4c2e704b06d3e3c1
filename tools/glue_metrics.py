"""The official metrics of GLUE's tasks, through scikit-learn and scipy."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

Values = NDArray[np.float64]


def accuracy(gold: Values, predicted: Values) -> dict[str, float]:
    return {"acc": float(accuracy_score(gold, predicted))}


def accuracy_and_f1(gold: Values, predicted: Values) -> dict[str, float]:
    """F1 is of class 1: that the two texts mean the same."""
    acc, f1 = accuracy(gold, predicted)["acc"], float(f1_score(gold, predicted, zero_division=0))
    return {"acc": acc, "f1": f1, "acc_and_f1": (acc + f1) / 2}


def matthews(gold: Values, predicted: Values) -> dict[str, float]:
    return {"mcc": float(matthews_corrcoef(gold, predicted))}


def correlations(gold: Values, predicted: Values) -> dict[str, float]:
    """Pearson's and Spearman's; 0 where one side is constant, so that none is defined."""
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return {"pearson": 0.0, "spearmanr": 0.0, "corr": 0.0}
    pearson, spearman = float(pearsonr(gold, predicted).statistic), float(spearmanr(gold, predicted).statistic)
    return {"pearson": pearson, "spearmanr": spearman, "corr": (pearson + spearman) / 2}


_METRICS: dict[str, Callable[[Values, Values], dict[str, float]]] = {
    "cola": matthews,
    "sst-2": accuracy,
    "mrpc": accuracy_and_f1,
    "sts-b": correlations,
    "qqp": accuracy_and_f1,
    "mnli": accuracy,
    "qnli": accuracy,
    "rte": accuracy,
    "wnli": accuracy,
    "ax": matthews,
}


def glue_scores(task: str, gold: Values, predicted: Values) -> dict[str, float]:
    """The metrics of a task: ``acc``, ``f1``, ``mcc``, ``pearson``, ``spearmanr``, and their mean where there are two.

    Args:
        gold, predicted: ids of classes, or scores, ``(N,)``.
    """
    return _METRICS[task.lower()](gold, predicted)
