"""Where a training is watched: TensorBoard, MLflow and Weights & Biases."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams
from torch import nn

from callbacks.base import Callback, ScoredText, TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HyperParameters = Mapping[str, str | float | bool]


class Tracker(Callback):
    """Sends numbers with names and steps to a tracker, on rank 0. Subclasses open it, write to it and close it."""

    def __init__(self) -> None:
        self._is_open = False

    def on_train_begin(self, state: TrainState) -> None:
        if state.is_main:
            self.open(state)
            self._is_open = True

    def on_log(self, state: TrainState) -> None:
        if self._is_open:
            speed = ("words_per_second", "padding_share", "utilisation", "memory_gib")
            names = ("loss", "gradient_norm", "epoch", *speed, "skipped_steps")
            scalars = {f"train/{name}": getattr(state, name) for name in names}
            rates = {f"learning_rate/{part}": rate for part, rate in state.learning_rates.items()}
            self.write(scalars | rates, state.step)

    def on_evaluate(self, state: TrainState) -> None:
        if self._is_open:
            scalars = {f"dev/{name}": value for name, value in state.metrics.items()}
            for entity_type, scores in state.type_metrics.items():
                group = f"dev_types/{entity_type}" if entity_type else "dev_types"  # MLflow takes no empty part
                scalars |= {f"{group}/{name}": value for name, value in scores.items()}
            self.write(scalars, state.step)

    def on_train_end(self, state: TrainState) -> None:
        if self._is_open and state.best_metrics:
            self.write({f"final/{name}": value for name, value in state.best_metrics.items()}, state.step)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.shut()

    def open(self, state: TrainState) -> None:
        """Training starts, or resumes after ``state.step``."""
        raise NotImplementedError

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the numbers of a step; names have parts joined by slashes."""
        raise NotImplementedError

    def shut(self) -> None:
        """Training has ended, with or without an error."""
        raise NotImplementedError


class TensorBoard(Tracker):
    """Writes events into a folder; ``tensorboard --logdir outputs`` shows all runs side by side.

    Args:
        log_dir: the folder.
        hyper_parameters: shown next to the final scores.
    """

    def __init__(self, log_dir: Path, hyper_parameters: HyperParameters) -> None:
        super().__init__()
        self._log_dir = log_dir
        self._hyper_parameters = dict(hyper_parameters)
        self._writer: SummaryWriter

    def open(self, state: TrainState) -> None:
        purge = state.step + 1 if state.step else None  # what an interrupted run wrote after its checkpoint
        self._writer = SummaryWriter(str(self._log_dir), purge_step=purge, filename_suffix=f".{state.step}")

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def shut(self) -> None:
        self._writer.close()

    def on_evaluate(self, state: TrainState) -> None:
        super().on_evaluate(state)
        if self._is_open and state.examples:
            self._writer.add_text("dev/examples", _markdown_table(state.examples), state.step)

    def on_train_end(self, state: TrainState) -> None:
        super().on_train_end(state)
        if not self._is_open:
            return
        crf = getattr(state.model, "crf", None)
        if crf is not None:
            transitions = transition_picture(crf, state.tag_names)
            self._writer.add_image("crf/transitions", transitions, state.step, dataformats="HWC")
        # add_hparams would create another run for them
        for summary in hparams(self._hyper_parameters, {f"final/{name}": 0.0 for name in state.best_metrics}):
            self._writer.file_writer.add_summary(summary)


def _markdown_table(examples: Sequence[ScoredText]) -> str:
    lines = ["| text | gold | predicted |", "|---|---|---|"]
    for example in examples:
        cells = (example.text, "; ".join(example.gold), "; ".join(example.predicted))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def transition_picture(crf: nn.Module, tag_names: Sequence[str]) -> NDArray[np.uint8]:
    """Transition scores as pixels ``(height, width, 3)``; grey if the tag scheme forbids the transition.

    Args:
        crf: see `transition_scores`.
        tag_names: of the C tags.
    """
    scores = transition_scores(crf.transitions, crf.start_transitions, crf.end_transitions, crf.legal)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.set_facecolor("0.85")
        limit = np.nanmax(np.abs(scores))
        image = axes.imshow(scores, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_xticks(range(len(tag_names) + 1), [*tag_names, "end"], rotation=90)
        axes.set_yticks(range(len(tag_names) + 1), [*tag_names, "start"])
        axes.set(xlabel="to", ylabel="from")
        figure.colorbar(image, shrink=0.8)

    size = 2 + 0.28 * len(tag_names)
    return picture(draw, size, size)


def picture(draw: Callable[["Figure"], None], width: float, height: float) -> NDArray[np.uint8]:
    """Draw a figure of ``width`` by ``height`` inches as pixels ``(rows, columns, 3)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # importing matplotlib takes long
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=90, layout="tight")
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


@torch.no_grad()
def transition_scores(transitions: Any, start: Any, end: Any, legal: Any) -> NDArray[np.float64]:
    """Scores from each of the C tags and the start to each tag and the end, ``(C + 1, C + 1)``; NaN if illegal.

    Args:
        transitions, start, end: tensors ``(C, C)``, ``(C,)``, ``(C,)``.
        legal: bool tensor ``(C + 2, C + 2)`` as in `models.crf.CRF.set_legal`, or ``None``.
    """

    C = len(start)
    scores = torch.full((C + 1, C + 1), torch.nan, dtype=torch.float64)
    scores[:C, :C], scores[C, :C], scores[:C, C] = transitions, start, end
    if legal is not None:
        scores[~legal[: C + 1, [*range(C), C + 1]].cpu()] = torch.nan  # column C: nothing precedes the start
    return scores.numpy()


class RemoteTracker(Tracker):
    """A tracker with a package and runs of its own; a resumed training continues its run.

    Args:
        name: of the run.
        hyper_parameters: stored with the run.

    Raises:
        ValueError: the package is not installed.
    """

    package: str
    _REMEMBERED = ("_run_id",)

    def __init__(self, name: str, hyper_parameters: HyperParameters) -> None:
        super().__init__()
        self._name, self._hyper_parameters = name, dict(hyper_parameters)
        self._run_id: str | None = None
        try:
            self._package: Any = importlib.import_module(self.package)
        except ImportError as error:
            raise ValueError(
                f"--report_to {self.package}: the package cannot be imported ({error}); pip install {self.package}"
            ) from error


class MLflow(RemoteTracker):
    """Runs at ``MLFLOW_TRACKING_URI`` in the experiment ``MLFLOW_EXPERIMENT_NAME``."""

    package = "mlflow"

    def open(self, state: TrainState) -> None:
        run = self._package.start_run(run_id=self._run_id, run_name=self._name)
        if self._run_id is None:
            self._package.log_params(self._hyper_parameters)
        self._run_id = run.info.run_id

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        self._package.log_metrics(dict(scalars), step=step)

    def shut(self) -> None:
        self._package.end_run()


class WandB(RemoteTracker):
    """Runs of the project ``WANDB_PROJECT``."""

    package = "wandb"

    def open(self, state: TrainState) -> None:
        config = self._hyper_parameters
        self._run = self._package.init(name=self._name, config=config, id=self._run_id, resume="allow")
        self._run_id = self._run.id

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def shut(self) -> None:
        self._run.finish()
