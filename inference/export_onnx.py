"""Writes a trained model as one ONNX file, decoding included, and checks it against the model.

python -m inference.export_onnx outputs/run
python -m inference.export_onnx outputs/run --output ner.onnx
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from common.command_line import CommandLine
from common.log import console, setup_logging
from inference.onnx_graph import random_inputs, write_onnx
from inference.predictor import NerPredictor
from models.heads.flat import FlatTagger
from tools.recipe import run_script

_TOLERANCE = 1e-3  # of a score, and of the score of a whole row; float32 rounds a hundred times finer


@dataclass(frozen=True)
class Comparison:
    """What random inputs have shown.

    Args:
        inputs, words: how many batches and words were compared.
        difference: the largest between two emissions.
        other_tags: words whose tags differ.
        regret: the most that a row's tags score below the model's best; more than rounding where they are wrong.
    """

    inputs: int
    words: int
    difference: float
    other_tags: int
    regret: float

    @property
    def is_equal(self) -> bool:
        return self.difference <= _TOLERANCE and self.regret <= _TOLERANCE


@dataclass(frozen=True)
class Timing:
    """Milliseconds for a batch of this shape, medians of runs that took turns."""

    B: int
    T: int
    W: int
    torch_ms: float
    onnx_ms: float


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """The file on the CPU, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(
    tagger: FlatTagger, session: onnxruntime.InferenceSession, longest: int, count: int = 50, seed: int = 0
) -> Comparison:
    """Both on so many random batches, from one token to the longest window."""
    generator = torch.Generator().manual_seed(seed)
    words, difference, other_tags, regret = 0, 0.0, 0, 0.0
    for B, T, W in _shapes(longest, count, generator):
        inputs = random_inputs(tagger, B, T, W, generator)
        mask = inputs["word_mask"]
        expected, logits = _run_torch(tagger, inputs)
        tags, emissions = (torch.from_numpy(output) for output in session.run(None, _as_numpy(inputs)))
        words += int(mask.sum())
        difference = max(difference, float((emissions - logits).abs().max()))
        other_tags += int((tags != expected)[mask].sum())
        lost = _losses(tagger, logits, tags, mask) - _losses(tagger, logits, expected, mask)  # (B,)
        regret = max(regret, float(lost.max()))
    return Comparison(count, words, difference, other_tags, regret)


def time_both(
    tagger: FlatTagger, session: onnxruntime.InferenceSession, B: int, T: int, W: int, repeats: int = 10
) -> Timing:
    """Model and session on the same batch, by turns; the first run of each does not count."""
    inputs = random_inputs(tagger, B, T, W, torch.Generator().manual_seed(0))
    arrays = _as_numpy(inputs)
    torch_ms, onnx_ms = [], []
    for _ in range(repeats + 1):
        torch_ms.append(_milliseconds(lambda: _run_torch(tagger, inputs)))
        onnx_ms.append(_milliseconds(lambda: session.run(None, arrays)))
    return Timing(B, T, W, median(torch_ms[1:]), median(onnx_ms[1:]))


def _shapes(longest: int, count: int, generator: torch.Generator) -> Iterator[tuple[int, int, int]]:
    """Rows, tokens and words: a single word, the longest window, and what chance has, shorter ones more often."""
    yield 1, 1, 1
    yield 1, longest, longest
    for _ in range(count - 2):
        T = round(longest ** float(torch.rand((), generator=generator)))
        B, W = (int(torch.randint(1, most + 1, (), generator=generator)) for most in (8, T))
        yield B, T, W


@torch.inference_mode()
def _run_torch(tagger: FlatTagger, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    logits = tagger(**inputs).logits  # (B, W, C)
    return tagger.decode(logits, inputs["word_mask"]), logits


@torch.inference_mode()
def _losses(tagger: FlatTagger, logits: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
    return tagger.losses(logits, tags.masked_fill(~mask, 0), mask)  # (B,)


def _as_numpy(inputs: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


_TIMED_SHAPES = ((1, 32, 24), (1, 128, 96), (8, 128, 96), (32, 64, 48))


def main() -> None:
    args = parse_arguments()
    setup_logging()
    export(args.model, args.output or args.model / "model.onnx", args.head)


def export(folder: Path, path: Path, head: str = "") -> None:
    """Writes the file, and prints what the check found and how fast it is.

    Args:
        head: the head of the folder where it is not built in, as ``module:Class``.

    Raises:
        ValueError: the folder holds no trained model, its head cannot be exported, or the file does not give the
            model's tags.
    """
    predictor = NerPredictor.load(folder, device="cpu", head=head)
    tagger, longest = predictor.model, predictor.max_seq_length
    if tagger.unexportable or not isinstance(tagger, FlatTagger):
        raise ValueError(f"{folder} holds the head {type(tagger).__name__}: {tagger.unexportable}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(tagger, path)
    session = open_session(path)
    comparison = compare(tagger, session, longest)
    console().print(comparison_table(path, comparison))
    if not comparison.is_equal:
        raise ValueError(f"{path} does not compute what the model does; do not use it, and report the table above")
    timings = [time_both(tagger, session, *shape) for shape in _TIMED_SHAPES if shape[1] <= longest]
    console().print(timing_table(timings))


def comparison_table(path: Path, comparison: Comparison) -> Table:
    table = Table(title=f"{path} against the model", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("random inputs", str(comparison.inputs))
    table.add_row("words", f"{comparison.words:,}")
    table.add_row("largest difference of emissions", f"{comparison.difference:.1e}")
    table.add_row("words with another tag", str(comparison.other_tags))
    table.add_row("largest loss of score by them", f"{comparison.regret:.1e}")
    table.add_row("all tags equal, or tied", "yes" if comparison.is_equal else "NO")
    return table


def timing_table(timings: list[Timing]) -> Table:
    table = Table("rows x tokens", title=f"Milliseconds a batch, {torch.get_num_threads()} threads")
    for column in ("torch", "onnxruntime", "times as fast"):
        table.add_column(column, justify="right")
    for timing in timings:
        figures = (timing.torch_ms, timing.onnx_ms, timing.torch_ms / timing.onnx_ms)
        table.add_row(f"{timing.B} x {timing.T}", *(f"{figure:.2f}" for figure in figures))
    return table


def parse_arguments() -> argparse.Namespace:
    parser = CommandLine(
        prog="python -m inference.export_onnx",
        description="Write a trained model as one ONNX file, check it against the model, and time both.",
    )
    parser.add_argument("model", type=Path, help="folder of a run")
    parser.add_argument("--output", type=Path, help="file to write; by default model.onnx in that folder")
    parser.add_argument("--head", default="", help="head of the model if it is your own, as module:Class")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
