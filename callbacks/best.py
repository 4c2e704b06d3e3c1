"""How the scores of two models compare."""

from collections.abc import Mapping

_SMALLER_IS_BETTER = ("loss",)


def comparable(metrics: Mapping[str, float], metric: str) -> float:
    """One of the scores, larger where the model is better."""
    return -metrics[metric] if metric in _SMALLER_IS_BETTER else metrics[metric]
