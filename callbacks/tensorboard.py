"""The training as TensorBoard shows it: curves, example texts, the CRF's transitions, runs side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from callbacks.base import ScoredText, TrainState
from callbacks.reporter import Reporter
from callbacks.transitions import transition_picture


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
