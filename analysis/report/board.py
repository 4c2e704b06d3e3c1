"""Final scores as TensorBoard shows them: entities' precision-recall curve, pictures of confusion and calibration."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from analysis.documents import ScoredDocument
from analysis.intervals import precision_recall_f1
from analysis.report.calibration import Judged, counts_at, judge, reliability
from common.run_files import RunFolder

_THRESHOLDS = np.linspace(0, 1, 127)  # as many as TensorBoard draws by itself


def draw_on_board(
    run: Path, checkpoint: str, split: str, documents: Sequence[ScoredDocument], confusion: Mapping[str, Any]
) -> None:
    """Adds to the events of a run.

    Args:
        run: its folder.
        checkpoint: name of the checkpoint that was scored; empty for the run's final model.
        split: a part of the names in TensorBoard.
        documents: with confidences.
        confusion: as `analysis.pairs.type_confusion` makes it.
    """
    step = step_of(run, checkpoint)
    judged = judge(documents)
    with SummaryWriter(str(RunFolder(run).tensorboard), filename_suffix=f".{split}.{step}") as writer:
        _add_curve(writer, f"{split}/entities", judged, step)
        if confusion["types"]:
            picture = _drawn(lambda axes: _draw_confusion(axes, confusion))
            writer.add_image(f"{split}/confusion", picture, step, dataformats="HWC")
        if len(judged.right):
            picture = _drawn(lambda axes: _draw_calibration(axes, judged))
            writer.add_image(f"{split}/calibration", picture, step, dataformats="HWC")


def step_of(run: Path, checkpoint: str) -> int:
    """The step of a checkpoint by its name, or else the last step of the training; 0 where it is unknown."""
    number = checkpoint.rpartition("-")[2]
    if number.isdecimal():
        return int(number)
    results = RunFolder(run).train_results
    return int(json.loads(results.read_text("utf-8"))["steps"]) if results.is_file() else 0


def _add_curve(writer: SummaryWriter, name: str, judged: Judged, step: int) -> None:
    counts = counts_at(judged, _THRESHOLDS)  # (K, 3)
    right, predicted, gold = counts.T
    precision, recall, _ = precision_recall_f1(counts).T
    nothing_to_leave_out = np.zeros_like(right)
    writer.add_pr_curve_raw(
        name,
        right,
        predicted - right,
        nothing_to_leave_out,
        gold - right,
        np.where(predicted > 0, precision, 1.0),
        recall,
        step,
        num_thresholds=len(_THRESHOLDS),
    )


def _drawn(draw: Callable[[Any], None]) -> NDArray[np.uint8]:
    """A picture ``(height, width, 3)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes long to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5), dpi=90, layout="tight")
    canvas = FigureCanvasAgg(figure)
    draw(figure.subplots())
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _draw_confusion(axes: Any, confusion: Mapping[str, Any]) -> None:
    types = confusion["types"]
    counts = np.zeros((len(types) + 1, len(types) + 1), int)
    counts[:-1, :-1] = confusion["matrix"]
    counts[:-1, -1], counts[-1, :-1] = confusion["missed"], confusion["spurious"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.4 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(types) + 1), [*types, "missed"], rotation=90)
    axes.set_yticks(range(len(types) + 1), [*types, "spurious"])
    axes.set(xlabel="predicted", ylabel="gold")


def _draw_calibration(axes: Any, judged: Judged) -> None:
    found = reliability(judged)
    confidence, precision, low, high, _ = np.array(found.bins).T
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    axes.errorbar(confidence, precision, np.maximum((precision - low, high - precision), 0), fmt="o", capsize=3)
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(f"expected calibration error {found.error:.3f}")
