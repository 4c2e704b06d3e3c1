"""The training as TensorBoard shows it: curves, example texts, the CRF's transitions, runs side by side."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams
from torch import nn

from callbacks.base import Callback, ScoredText, TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Reporter(Callback):
    """Sends numbers by name and step to where somebody looks at them; on rank 0 only.

    Subclasses say how to open, write and close.
    """

    def __init__(self) -> None:
        self._is_open = False

    def on_train_begin(self, state: TrainState) -> None:
        if state.is_main:
            self.open(state)
            self._is_open = True

    def on_log(self, state: TrainState) -> None:
        if self._is_open:
            self.write(_of_training(state), state.step)

    def on_evaluate(self, state: TrainState) -> None:
        if self._is_open:
            self.write(_of_dev(state), state.step)

    def on_train_end(self, state: TrainState) -> None:
        if self._is_open and state.best_metrics:
            self.write({f"final/{name}": value for name, value in state.best_metrics.items()}, state.step)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.shut()

    def open(self, state: TrainState) -> None:
        """The training begins, or goes on after ``state.step``."""
        raise NotImplementedError

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Numbers of a step; names have parts joined by slashes."""
        raise NotImplementedError

    def shut(self) -> None:
        """The training has ended, well or not."""
        raise NotImplementedError


def _of_training(state: TrainState) -> dict[str, float]:
    scalars = {
        "loss": state.loss,
        "gradient_norm": state.gradient_norm,
        "epoch": state.epoch,
        "words_per_second": state.words_per_second,
        "padding_share": state.padding_share,
        "utilisation": state.utilisation,
        "memory_gib": state.memory_gib,
        "skipped_steps": state.skipped_steps,
    }
    rates = {f"learning_rate/{learner}": rate for learner, rate in state.learning_rates.items()}
    return {f"train/{name}": value for name, value in scalars.items()} | rates


def _of_dev(state: TrainState) -> dict[str, float]:
    scalars = {f"dev/{name}": value for name, value in state.metrics.items()}
    for entity_type, scores in state.type_metrics.items():
        group = f"dev_types/{entity_type}" if entity_type else "dev_types"  # MLflow takes no empty part
        scalars |= {f"{group}/{name}": value for name, value in scores.items()}
    return scalars


class TensorBoard(Reporter):
    """Writes events into a folder: ``tensorboard --logdir outputs`` shows all runs side by side.

    Args:
        log_dir: the folder.
        hyper_parameters: what tells this run from others.
    """

    def __init__(self, log_dir: Path, hyper_parameters: Mapping[str, str | float | bool]) -> None:
        super().__init__()
        self._log_dir = log_dir
        self._hyper_parameters = dict(hyper_parameters)
        self._writer: SummaryWriter

    def open(self, state: TrainState) -> None:
        purge = state.step + 1 if state.step else None  # what an interrupted run drew beyond its checkpoint
        self._writer = SummaryWriter(str(self._log_dir), purge_step=purge, filename_suffix=f".{state.step}")

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def shut(self) -> None:
        self._writer.close()

    def on_evaluate(self, state: TrainState) -> None:
        super().on_evaluate(state)
        if self._is_open and state.examples:
            self._writer.add_text("dev/examples", _table(state.examples), state.step)

    def on_train_end(self, state: TrainState) -> None:
        super().on_train_end(state)
        if not self._is_open:
            return
        crf = getattr(state.model, "crf", None)
        if crf is not None:
            picture = transition_picture(crf, state.tag_names)
            self._writer.add_image("crf/transitions", picture, state.step, dataformats="HWC")
        # add_hparams would open another run for them; here they belong to this one
        for summary in hparams(self._hyper_parameters, {f"final/{name}": 0.0 for name in state.best_metrics}):
            self._writer.file_writer.add_summary(summary)


def _table(examples: Sequence[ScoredText]) -> str:
    """Markdown."""
    lines = ["| text | gold | predicted |", "|---|---|---|"]
    for example in examples:
        cells = (example.text, "; ".join(example.gold), "; ".join(example.predicted))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def transition_picture(crf: nn.Module, tag_names: Sequence[str]) -> NDArray[np.uint8]:
    """The scores from each tag, and the start, to each tag, and the end; grey where the scheme forbids it.

    Args:
        crf: with ``transitions (C, C)``, ``start_transitions (C,)``, ``end_transitions (C,)``, and ``legal``, which is
            None or ``(C + 2, C + 2)``.
        tag_names: of the C tags.

    Returns:
        ``(height, width, 3)``.
    """
    scores = transition_scores(crf)

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


def transition_scores(crf: nn.Module) -> NDArray[np.float64]:
    """From each of the C tags and the start to each of them and the end, ``(C + 1, C + 1)``; NaN where illegal."""
    C = len(_array(crf.start_transitions))
    scores = np.full((C + 1, C + 1), np.nan)
    scores[:C, :C] = _array(crf.transitions)
    scores[C, :C], scores[:C, C] = _array(crf.start_transitions), _array(crf.end_transitions)
    if crf.legal is not None:
        legal = _array(crf.legal).astype(bool)
        scores[~np.delete(legal[: C + 1], C, axis=1)] = np.nan  # nothing goes to the start
    return scores


def _array(tensor: object) -> NDArray[np.float64]:
    return tensor.detach().double().cpu().numpy()  # type: ignore[attr-defined]


class MLflow(Reporter):
    """A run where ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` say; a resumed training goes on in its run.

    Args:
        name: of the run.
        hyper_parameters: what tells this run from others.

    Raises:
        ValueError: the package mlflow is not installed.
    """

    def __init__(self, name: str, hyper_parameters: Mapping[str, str | float | bool]) -> None:
        super().__init__()
        self._mlflow = import_optional("mlflow", "--report_to mlflow")
        self._name, self._hyper_parameters = name, dict(hyper_parameters)
        self._run_id: str | None = None

    def open(self, state: TrainState) -> None:
        run = self._mlflow.start_run(run_id=self._run_id, run_name=self._name)
        if self._run_id is None:
            self._mlflow.log_params(self._hyper_parameters)
        self._run_id = run.info.run_id

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(scalars), step=step)

    def shut(self) -> None:
        self._mlflow.end_run()

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self._run_id}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._run_id = saved["run_id"]


class WandB(Reporter):
    """A run of the project that ``WANDB_PROJECT`` names; a resumed training goes on in its run.

    Args:
        name: of the run.
        hyper_parameters: what tells this run from others.

    Raises:
        ValueError: the package wandb is not installed.
    """

    def __init__(self, name: str, hyper_parameters: Mapping[str, str | float | bool]) -> None:
        super().__init__()
        self._wandb = import_optional("wandb", "--report_to wandb")
        self._name, self._hyper_parameters = name, dict(hyper_parameters)
        self._run_id: str | None = None
        self._run: Any = None

    def open(self, state: TrainState) -> None:
        config = self._hyper_parameters
        self._run = self._wandb.init(name=self._name, config=config, id=self._run_id, resume="allow")
        self._run_id = self._run.id

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def shut(self) -> None:
        self._run.finish()

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self._run_id}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._run_id = saved["run_id"]


def import_optional(package: str, flag: str) -> ModuleType:
    """The package.

    Raises:
        ValueError: it is not installed; the flag asked for it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{flag}: the package {package} cannot be imported ({error}); pip install {package}"
        ) from error
