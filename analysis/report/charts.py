"""Every chart of a scored run, drawn once: as SVG in the report, as a picture in TensorBoard."""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from analysis.analysis import Analysis
from analysis.calibration import Reliability, counts_at, judge
from analysis.dial import LEAST, DialRow, Dials
from analysis.documents import ScoredDocument, precision_recall_f1
from callbacks.trackers import picture
from common.run_files import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
# The colours of the report's light theme, and the CSS variables that take their place in its SVGs.
_BLUE, _RED, _GREEN, _GREY, _LIGHT = "#2458b8", "#b4431c", "#217a54", "#5a6169", "#e2e2dc"
_CSS = {_BLUE: "--accent", _RED: "--wrong", _GREEN: "--third", _GREY: "--quiet", _LIGHT: "--line"}
_LINES = ((_BLUE, "-"), (_RED, "--"), (_GREEN, ":"), (_GREY, "-."))
_STYLE: dict[str, Any] = {
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "ytick.left": False,
    "font.size": 8,
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "legend.frameon": False,
    "path.simplify_threshold": 0.5,
    "svg.fonttype": "none",
    "grid.color": _LIGHT,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _GREY),
}
_MARKED = 60  # points of a curve, up to which each is marked
_LOG_FROM = 30  # largest by smallest value
_THRESHOLDS = np.linspace(0, 1, 127)  # as many as TensorBoard draws by itself


def svg(draw: Callable[["Figure"], None], title: str, description: str, height: float = 2.4) -> Markup:
    """Draw a chart as a captioned figure of HTML whose colours follow the theme of the page.

    Args:
        draw: draws into an empty figure.
        title: the caption.
        description: what a screen reader reads after it.
        height: in inches; the chart is 4 inches wide, and grows with the page.
    """
    from matplotlib import rc_context  # importing matplotlib takes long
    from matplotlib.figure import Figure

    file = io.StringIO()
    with rc_context(_STYLE | {"svg.hashsalt": title + description}):
        figure = Figure(figsize=(4, height), layout="constrained")
        draw(figure)
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = file.getvalue()
    text = re.sub(r' id="[A-Za-z.]+(2d)?_\d+"', "", text[text.index("<svg") :])  # else several charts share them
    for colour, variable in _CSS.items():
        text = text.replace(colour, f"var({variable})")
    opening = f'<svg class="chart" role="img" aria-label="{escape(f"{title}: {description}")}"'
    return Markup(f"<figure><figcaption>{escape(title)}</figcaption>{text.replace('<svg', opening, 1)}</figure>")


def draw_lines(figure: "Figure", x_label: str, curves: Mapping[str, Sequence[Point]], log: bool = False) -> None:
    """Draw curves over a common axis, with a gap where a value is not finite.

    Args:
        curves: the points of each by name, in order of x.
        log: whether to use a logarithmic scale if the values span orders of magnitude.
    """
    axes = figure.subplots()
    finite = np.array([y for points in curves.values() for _, y in points if np.isfinite(y)])
    if log and finite.size and finite.min() > 0 and finite.max() > _LOG_FROM * finite.min():
        axes.set_yscale("log")
    for (name, points), (colour, dashes) in zip(curves.items(), cycle(_LINES), strict=False):
        x, y = np.array(points, float).reshape(-1, 2).T
        y[~np.isfinite(y)] = np.nan
        marker = "o" if len(points) <= _MARKED else ""
        axes.plot(x, y, dashes, color=colour, label=name, marker=marker, markersize=2.5, linewidth=1.2, clip_on=False)
    axes.set_xlabel(x_label)
    figure.legend(loc="outside upper left", ncols=len(_LINES))


def draw_calibration(figure: "Figure", found: Reliability) -> None:
    """Draw precision by confidence with 95 % intervals; below, how many entities there are."""
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    confidence, precision, low, high, sizes = np.array([astuple(one) for one in found.bins]).reshape(-1, 5).T
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1)
    reach = np.maximum((precision - low, high - precision), 0)
    axes.errorbar(confidence, precision, reach, fmt="o", color=_BLUE, markersize=4, capsize=2)
    axes.set(ylabel="share correct", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    below.bar(confidence, sizes, width=0.05, color=_BLUE)
    below.set(xlabel="confidence", ylabel="entities")


def draw_confusion(figure: "Figure", confusion: Mapping[str, Any]) -> None:
    """Draw how often each gold type was predicted as which; colours are shares of the row, on a square-root scale."""
    axes: Axes = figure.subplots()
    types = confusion["types"]
    counts = np.zeros((len(types) + 1, len(types) + 1), int)
    counts[:-1, :-1] = confusion["matrix"]
    counts[:-1, -1], counts[-1, :-1] = confusion["missed"], confusion["spurious"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.4 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(types) + 1), [*types, "missed"], rotation=90)
    axes.set_yticks(range(len(types) + 1), [*types, "spurious"])
    axes.set(xlabel="predicted", ylabel="gold")


def draw_dials(figure: "Figure", dials: Dials, rows: Sequence[DialRow] = ()) -> None:
    """Draw precision by recall over all thresholds, the same for all types, and the points that were asked for."""
    axes = figure.subplots()
    for label, dial, (colour, dashes) in (
        ("most probable candidates", dials.compatible, _LINES[0]),
        ("all candidates", dials.overlapping, _LINES[1]),
    ):
        axes.plot(dial.overall.recall, dial.overall.precision, dashes, color=colour, label=label, linewidth=1.2)
    for row in rows:
        axes.plot(row.recall, row.precision, "o", color=_GREEN, markersize=3)
    axes.set(xlabel="recall", ylabel="precision")
    figure.legend(loc="outside upper left", ncols=2)


def draw_on_board(
    run: Path,
    checkpoint: str,
    split: str,
    documents: Sequence[ScoredDocument],
    analysis: Analysis,
    dials: Dials | None = None,
) -> None:
    """Add the scores of a split to the TensorBoard events of a run.

    Args:
        run: its folder.
        checkpoint: name of the checkpoint that was scored; empty for the run's final model.
        split: part of the names in TensorBoard.
        documents: with confidences.
        analysis: of these documents.
        dials: of this split, if the head has candidates.
    """
    step = step_of(run, checkpoint)
    judged = judge(documents)
    with SummaryWriter(str(RunFolder(run).tensorboard), filename_suffix=f".{split}.{step}") as writer:
        if dials is not None:
            counts = np.stack([dials.compatible.overall.counts(max(LEAST, threshold)) for threshold in _THRESHOLDS])
        else:
            counts = counts_at(judged, _THRESHOLDS)
        _add_curve(writer, f"{split}/entities", counts, step)
        pictures: dict[str, Callable[[Figure], None]] = {}
        if analysis.confusion["types"]:
            pictures["confusion"] = partial(draw_confusion, confusion=analysis.confusion)
        if analysis.calibration is not None and analysis.calibration.bins:
            pictures["calibration"] = partial(draw_calibration, found=analysis.calibration)
        if dials is not None:
            pictures["dial"] = partial(draw_dials, dials=dials, rows=analysis.dial or ())
        for name, draw in pictures.items():
            writer.add_image(f"{split}/{name}", picture(draw, 5.5, 5), step, dataformats="HWC")


def step_of(run: Path, checkpoint: str) -> int:
    """The step in the name of a checkpoint, otherwise the last step of the training; 0 if it is unknown."""
    number = checkpoint.rpartition("-")[2]
    if number.isdecimal():
        return int(number)
    results = RunFolder(run).train_results
    return int(json.loads(results.read_text("utf-8"))["steps"]) if results.is_file() else 0


def _add_curve(writer: SummaryWriter, name: str, counts: NDArray[np.int64], step: int) -> None:
    """Add correct, predicted and gold entities ``(K, 3)`` at the thresholds."""
    correct, predicted, gold = counts.T
    precision, recall, _ = precision_recall_f1(counts).T
    writer.add_pr_curve_raw(
        name,
        true_positive_counts=correct,
        false_positive_counts=predicted - correct,
        true_negative_counts=np.zeros_like(correct),  # no text tells how many entities there are not
        false_negative_counts=gold - correct,
        precision=np.where(predicted > 0, precision, 1.0),
        recall=recall,
        global_step=step,
        num_thresholds=len(_THRESHOLDS),
    )
