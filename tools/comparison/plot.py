"""Variants as a picture: every run a dot, their mean with its interval over documents."""

from collections.abc import Sequence
from pathlib import Path

from tools.comparison.sheets import variant_interval
from tools.comparison.variants import Variant


def plot_variants(variants: Sequence[Variant], score: str, resamples: int, seed: int, path: Path) -> None:
    """Writes a picture; the file's suffix says of what kind.

    Raises:
        ValueError: there is no such kind.
    """
    from matplotlib.figure import Figure  # takes a while, and only pictures need it

    figure = Figure(figsize=(6, 1 + 0.5 * len(variants)), layout="constrained")
    axes = figure.subplots()
    for row, variant in enumerate(variants):
        scores = 100 * variant.scores(score)
        low, high = (100 * bound for bound in variant_interval(variant, score, resamples, seed))
        mean = scores.mean()
        errors = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
        axes.errorbar(mean, row, xerr=errors, fmt="D", color="tab:blue", capsize=4, markersize=5)
        axes.plot(scores, [row + 0.2] * len(scores), "o", color="tab:orange", markersize=4)  # below the mean
    axes.set_yticks(range(len(variants)), [variant.name for variant in variants])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlabel(f"{score} in %: runs, their mean, and its 95 % interval over documents")
    axes.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
