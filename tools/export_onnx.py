"""Writes a trained model as one ONNX file, decoding included, and checks it against the model.

python -m tools.export_onnx outputs/run
python -m tools.export_onnx outputs/run --output ner.onnx
"""

import argparse
from pathlib import Path

import torch
from rich.table import Table

from tools.command_line import CommandLine
from tools.log import console, setup_logging
from tools.onnx_check import Comparison, Timing, compare, open_session, time_both
from tools.onnx_graph import write_onnx
from tools.predictor import NerPredictor
from tools.recipe import run_script

_TIMED_SHAPES = ((1, 32, 24), (1, 128, 96), (8, 128, 96), (32, 64, 48))


def main() -> None:
    args = parse_arguments()
    setup_logging()
    export(args.model, args.output or args.model / "model.onnx")


def export(folder: Path, path: Path) -> None:
    """Writes the file, and prints what the check found and how fast it is.

    Raises:
        ValueError: the folder holds no trained model, or the file does not give the model's tags.
    """
    predictor = NerPredictor.load(folder, device="cpu")
    tagger, longest = predictor.model, predictor.max_seq_length
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
        prog="python -m tools.export_onnx",
        description="Write a trained model as one ONNX file, check it against the model, and time both.",
    )
    parser.add_argument("model", type=Path, help="folder of a run")
    parser.add_argument("--output", type=Path, help="file to write; by default model.onnx in that folder")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
