"""ONNX files with weights of 8 bits, kept only if the model finds almost as much on dev."""

import json
import logging
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from common.log import console
from common.run_files import RunFolder
from inference.onnx_model import onnx_tagger
from models.heads.flat import FlatTagger
from tools.data import load_and_cache_examples
from tools.evaluate import score_dataset
from tools.loading import adopt_model
from tools.run import Run
from tools.run_folder import data_flags
from tools.settings import Settings

_METADATA = "int8"


def dev_run(folder: Path, tagger: FlatTagger) -> Run:
    """The run of a folder, to score its model on dev.

    Raises:
        ValueError: the folder does not say where its data are.
    """
    return adopt_model(Run.of(Settings.of(output_dir=str(folder), **data_flags(RunFolder(folder)))), tagger)


def quantised(
    path: Path, small: Path, run: Run, tagger: FlatTagger, tokenizer: PreTrainedTokenizerBase, max_f1_loss: float
) -> None:
    """Quantise a file; the figures go into the metadata, as JSON under ``int8``.

    Args:
        path: the file to quantise, in float32.
        small: the file to write.
        run, tagger, tokenizer: the model of torch, and the run that tells its data.
        max_f1_loss: F1 points on dev that may be lost.

    Raises:
        ValueError: more is lost; the message has the figures.
    """
    logging.disable(logging.WARNING)  # it reports each tensor that is no number, such as masks
    try:
        quantize_dynamic(path, small, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
    dataset = load_and_cache_examples(run, run.corpus.task_name, tokenizer, "dev")
    before, after = (
        100 * score_dataset(run, one, dataset, "Evaluating").entities.micro.f1 for one in (tagger, onnx_tagger(small))
    )
    if before - after > max_f1_loss:
        shown = f"F1 on dev {before:.2f} in float32, {after:.2f} in int8"
        raise ValueError(f"{shown}: it loses more than --max_f1_loss {max_f1_loss:g}; no file is written")
    figures = {
        "dev_f1": round(before, 2),
        "dev_f1_int8": round(after, 2),
        "max_f1_loss": max_f1_loss,
        "bytes": path.stat().st_size,
        "bytes_int8": small.stat().st_size,
    }
    model = onnx.load(small)
    model.metadata_props.add(key=_METADATA, value=json.dumps(figures))
    onnx.save(model, small)
    table = Table("", "F1 on dev", "MB", title="int8")
    for name, f1, size in (("float32", before, figures["bytes"]), ("int8", after, figures["bytes_int8"])):
        table.add_row(name, f"{f1:.2f}", f"{size / 1e6:.1f}")
    console().print(table)
