"""Write a trained model as one ONNX file, decoding included, compare it with the model, and time both.

python -m inference.export_onnx outputs/run
python -m inference.export_onnx outputs/run --output ner.onnx
python -m inference.export_onnx outputs/run --output onnx_folder      # with the tokenizer: all that prediction needs
python -m inference.export_onnx outputs/run --int8 --max_f1_loss 0.3  # quantised, if dev says that it is good enough
"""

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from timeit import timeit
from typing import Any

import onnxruntime
import torch
from numpy.typing import NDArray
from onnxscript import ir
from rich.table import Table
from torch import Tensor, nn
from torch.export import Dim

from common.command_line import Bounds, CommandLine
from common.log import console, setup_logging
from common.run_files import RunFolder
from inference.int8 import dev_run, quantised
from inference.onnx_model import open_session, tagger_metadata
from inference.predictor import NerPredictor
from models import BertSoftmaxForNer
from models.heads.flat import FlatTagger
from models.tagger import casing_types
from models.word_states import takes_word_lengths
from tools.script import run_script

_TOLERANCE = 1e-3  # of a score, and of the score of a row; float32 rounding is a hundred times smaller
_TIMED_SHAPES = ((1, 32, 24), (1, 128, 96), (8, 128, 96), (32, 64, 48))  # rows, tokens, words
_OUTPUTS = ("tags", "emissions")


def main() -> None:
    description = "Write a trained model as one ONNX file, compare it with the model, and time both."
    parser = CommandLine(prog="python -m inference.export_onnx", description=description)
    parser.add_argument("model", type=Path, help="output_dir of a training run")
    parser.add_argument("--output", type=Path, help="file .onnx, or folder, to write; default: model.onnx in that run")
    parser.add_argument("--head", default="", help="head of the model if it is your own, as module:Class")
    parser.add_argument("--int8", action="store_true", help="quantise weights to 8 bits; default: model_int8.onnx")
    points = Bounds(float, at_least=0, at_most=100)
    text = "with --int8: F1 points on dev that may be lost; no file is written if it is more"
    parser.add_argument("--max_f1_loss", type=points, default=0.5, help=text)
    args = parser.parse_args()
    setup_logging()
    path = args.output or args.model / ("model_int8.onnx" if args.int8 else "model.onnx")
    export(args.model, path, args.head, args.max_f1_loss if args.int8 else None)


def export(folder: Path, path: Path, head: str = "", max_f1_loss: float | None = None) -> None:
    """Write the file, and print its differences from the model and the speed of both.

    Args:
        path: the file, or a folder for a file and the tokenizer if it does not end in ``.onnx``.
        head: the head of the folder if it is not built in, as ``module:Class``.
        max_f1_loss: for weights of 8 bits: F1 points on dev that may be lost.

    Raises:
        ValueError: the folder holds no trained model, its head cannot be exported, or the file gives other tags; of an
            8-bit file: it loses more F1 on dev, and is not written.
    """
    predictor = NerPredictor.load(folder, device="cpu", head=head)
    tagger, longest = predictor.model, predictor.max_seq_length
    if tagger.unexportable or not isinstance(tagger, FlatTagger):
        raise ValueError(f"{folder} holds the head {type(tagger).__name__}: {tagger.unexportable}")
    file = path if path.suffix == ".onnx" else path / "model.onnx"
    if max_f1_loss is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        session = _write_equal(tagger, file, longest)
    else:
        run = dev_run(folder, tagger)  # before anything takes its time
        with TemporaryDirectory() as scratch:
            exact, small = Path(scratch, "model.onnx"), Path(scratch, "int8.onnx")
            _write_equal(tagger, exact, longest)
            quantised(exact, small, run, tagger, predictor.tokenizer, max_f1_loss)
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(small, file)
        session = open_session(file)
    if file is not path:
        predictor.tokenizer.save_pretrained(path)
        if (dial := RunFolder(folder).dial("dev")).is_file():  # by which precision or recall can be asked for
            shutil.copy(dial, path)
    console().print(_speed(tagger, session, longest))


def _write_equal(tagger: FlatTagger, path: Path, longest: int) -> onnxruntime.InferenceSession:
    write_onnx(tagger, path)
    session = open_session(path)
    comparison = compare(tagger, session, longest)
    console().print(comparison.table(path))
    if not comparison.is_equal:
        raise ValueError(f"{path} differs from the model: do not use it, and report the table above")
    return session


def _speed(tagger: FlatTagger, session: onnxruntime.InferenceSession, longest: int) -> Table:
    table = Table("rows x tokens", title=f"Milliseconds per batch, {torch.get_num_threads()} threads")
    for column in ("torch", "onnxruntime", "speed-up"):
        table.add_column(column, justify="right")
    for B, T, W in (shape for shape in _TIMED_SHAPES if shape[1] <= longest):
        torch_ms, onnx_ms = time_both(tagger, session, B, T, W)
        table.add_row(f"{B} x {T}", *(f"{figure:.2f}" for figure in (torch_ms, onnx_ms, torch_ms / onnx_ms)))
    return table


class TaggerGraph(nn.Module):
    """The exported module: a tagger and its decoding."""

    def __init__(self, tagger: FlatTagger) -> None:
        super().__init__()
        self.tagger = tagger

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        word_positions: Tensor,
        word_mask: Tensor,
        token_type_ids: Tensor | None = None,
        word_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The best tags ``(B, W)`` or ``(B, W, K)`` of K types, -100 for padding, and the emissions ``(B, W, C)``."""
        inputs = (input_ids, attention_mask, token_type_ids, word_positions, word_mask)
        logits = self.tagger(*inputs, word_lengths=word_lengths).logits  # (B, W, C)
        return _masked(self.tagger.decode(logits, word_mask), word_mask, -100), logits


def write_onnx(tagger: FlatTagger, path: Path) -> None:
    """Write the file; weights of 2 GiB or more go to ``FILE.data`` next to it.

    The metadata holds the tag names in the order of their ids, the tag scheme, the token types of the casing, and
    windows and words of the evaluation as far as the config has them; of a head that tags each type by itself, also the
    types; and what `inference.onnx_model` needs to decode emissions.
    """
    example = random_inputs(tagger, B=2, T=6, W=4, generator=torch.Generator().manual_seed(0))
    sizes = {name: Dim(name) for name in ("batch", "tokens", "words")}
    shapes = {
        name: {0: sizes["batch"], 1: sizes["words" if name.startswith("word_") else "tokens"]} for name in example
    }
    _run_torch(tagger, example)  # a head may make at its first call what tracing could not make
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about missing packages
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # about sizes that it finds to be equal
        program = torch.onnx.export(
            TaggerGraph(tagger).eval(),
            kwargs=example,
            output_names=_OUTPUTS,
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        for value in node.outputs:
            value.shape = None  # behind an LSTM it is that of the example; the runtime infers shapes itself
    ends: list[list[int]] = [[len(tagger.types)] if tagger.nests else [], [tagger.num_scores(tagger.config)]]
    for output, end in zip(program.model.graph.outputs, ends, strict=True):
        output.shape = ir.Shape(["batch", "words", *end])
    names = ("eval_max_seq_length", "window_overlap", "context_size", "word_unit", "kept_words")
    found = {name: getattr(tagger.config, name) for name in names if hasattr(tagger.config, name)}
    found |= {"tags": tagger.tag_names, "casing_types": casing_types(tagger)}
    if tagger.nests:
        found["types"] = tagger.types
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in found.items()}
    program.model.metadata_props.update(metadata, markup=tagger.markup, **tagger_metadata(tagger))
    program.save(path)


@dataclass(frozen=True)
class Comparison:
    """Differences between the file and the model on random inputs.

    Args:
        inputs, words: numbers of batches and words.
        difference: largest difference between two emissions.
        other_tags: words with different tags.
        regret: the most that the tags of a row score below the model's best ones; zero but for rounding if they tie.
    """

    inputs: int
    words: int
    difference: float
    other_tags: int
    regret: float

    @property
    def is_equal(self) -> bool:
        return self.difference <= _TOLERANCE and self.regret <= _TOLERANCE

    def table(self, path: Path) -> Table:
        table = Table(title=f"{path} and the model", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_row("random inputs", str(self.inputs))
        table.add_row("words", f"{self.words:,}")
        table.add_row("largest difference between emissions", f"{self.difference:.1e}")
        table.add_row("words with another tag", str(self.other_tags))
        table.add_row("largest loss of score", f"{self.regret:.1e}")
        table.add_row("all tags equal or tied", "yes" if self.is_equal else "NO")
        return table


def compare(
    tagger: FlatTagger, session: onnxruntime.InferenceSession, longest: int, count: int = 50, seed: int = 0
) -> Comparison:
    """Compare both on random batches, from one token to the longest window."""
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
) -> tuple[float, float]:
    """Median milliseconds of torch and of onnxruntime for the same batch, in turn, after a warm-up run of each."""
    inputs = random_inputs(tagger, B, T, W, torch.Generator().manual_seed(0))
    arrays = _as_numpy(inputs)
    runs = (lambda: _run_torch(tagger, inputs), lambda: session.run(None, arrays))
    seconds = [[timeit(run, number=1) for run in runs] for _ in range(repeats + 1)]
    torch_ms, onnx_ms = (1000 * median(column) for column in zip(*seconds[1:], strict=True))
    return torch_ms, onnx_ms


def _shapes(longest: int, count: int, generator: torch.Generator) -> Iterator[tuple[int, int, int]]:
    """Rows, tokens and words: a single word, the longest window, and random shapes, mostly short ones."""
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
    given = _masked(tags, mask, 0)
    if (
        isinstance(tagger, BertSoftmaxForNer) and tagger.searches
    ):  # by what it searches, not by what it was trained with
        return -tagger.legal_crf()(logits, given, mask, reduction="none")  # (B,)
    return tagger.losses(logits, given, mask)  # (B,)


def _masked(tags: Tensor, mask: Tensor, value: int) -> Tensor:
    """Tags ``(B, W, ...)`` with this value where there is no word."""
    return tags.masked_fill(~mask.view(*mask.shape, *[1] * (tags.dim() - 2)), value)


def _as_numpy(inputs: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def random_inputs(tagger: FlatTagger, B: int, T: int, W: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A random batch, padded on the right; its first row has T tokens and W words.

    Raises:
        ValueError: more words than tokens.
    """
    if W > T:
        raise ValueError(f"{W} words cannot have {T} tokens")
    tokens = torch.randint(1, T + 1, (B,), generator=generator)  # (B,)
    words = torch.randint(1, W + 1, (B,), generator=generator)  # (B,)
    tokens[0], words[0] = T, W
    words = words.minimum(tokens)
    present = torch.arange(T) < tokens[:, None]  # (B, T)
    order = torch.rand(B, T, generator=generator).masked_fill(~present, 2)  # (B, T)
    word_mask = torch.arange(W) < words[:, None]  # (B, W)
    places = order.argsort(1)[:, :W].masked_fill(~word_mask, T).sort(1).values  # (B, W)
    ids = torch.randint(0, tagger.config.vocab_size, (B, T), generator=generator)
    inputs = {
        "input_ids": ids.masked_fill(~present, tagger.config.pad_token_id or 0),
        "attention_mask": present.long(),
        "word_positions": places.masked_fill(~word_mask, 0),
        "word_mask": word_mask,
    }
    if takes_word_lengths(tagger):
        ends = torch.where(word_mask, places, tokens[:, None]).roll(-1, 1)  # (B, W) where the next word begins
        ends[:, -1] = tokens
        inputs["word_lengths"] = (ends - places).masked_fill(~word_mask, 0)
    kinds = getattr(tagger.config, "type_vocab_size", 2)
    if tagger.takes_token_types and kinds > 1:
        inputs["token_type_ids"] = torch.randint(0, kinds, (B, T), generator=generator) * present
    return inputs


if __name__ == "__main__":
    run_script(main)
