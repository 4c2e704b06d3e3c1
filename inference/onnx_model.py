"""A tagger whose scores come from an exported ONNX file: onnxruntime encodes, and the head decodes them as ever.

The file carries the config and the weights of the head, which are few; the tokenizer lies in the same folder.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import safetensors.torch
import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.modeling_outputs import TokenClassifierOutput

from models.heads.flat import FlatTagger
from models.tagger import Tagger
from tools.heads import head_of, head_options
from tools.loading import adopt_model, check_same_vocabulary, check_vocabulary, load_tokenizer
from tools.run import Run

_CONFIG, _HEAD = "config", "head"  # in the metadata


def tagger_metadata(tagger: FlatTagger) -> dict[str, str]:
    """What `load_onnx` reads from the metadata of a file."""
    encoder = f"{tagger.base_model_prefix}."
    head = {name: weight for name, weight in tagger.state_dict().items() if not name.startswith(encoder)}
    config = tagger.config.to_dict() | {"architectures": [type(tagger).__name__]}
    return {_CONFIG: json.dumps(config), _HEAD: base64.b64encode(safetensors.torch.save(head)).decode("ascii")}


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open the file on the CPU, with as many threads as torch uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def load_onnx(
    run: Run, path: Path, head: str | type[Tagger] = "", **options: str
) -> tuple[Run, FlatTagger, PreTrainedTokenizerBase]:
    """Load a file and the tokenizer in its folder.

    Args:
        run: what to apply; see `tools.loading.load_model_and_tokenizer`, which returns the same.
        head: the head of the file if it is not built in, as ``module:Class`` or the class.
        options: options of the head that are to replace those of the file.

    Raises:
        ValueError: the file is not there, was not written by `inference.export_onnx` of this version, or does not match
            the tokenizer.
    """
    tagger = onnx_tagger(path, head, **options)
    tokenizer = load_tokenizer(run.settings.model, str(path.parent), tagger.config)
    check_vocabulary(tokenizer, tagger.config)
    check_same_vocabulary(False, tagger.config, tokenizer)
    return adopt_model(run, tagger), tagger, tokenizer


def onnx_tagger(path: Path, head: str | type[Tagger] = "", **options: str) -> FlatTagger:
    """The tagger of a file, without an encoder of its own; see `load_onnx`."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; write it with python -m inference.export_onnx")
    try:
        session = open_session(path)
    except Exception as error:  # of onnxruntime, of many kinds
        raise ValueError(f"{path} cannot be opened by onnxruntime: {error}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if not {_CONFIG, _HEAD} <= metadata.keys():
        raise ValueError(f"{path} has no config and head in its metadata: export it again with inference.export_onnx")
    config = AutoConfig.for_model(**json.loads(metadata[_CONFIG]))
    kind = head_of(config.architectures, path, getattr(config, "head_source", None), head)
    kind.override(config, head_options(kind, **options))
    with torch.device("meta"):  # no memory for the encoder
        tagger = kind(config)
    assert isinstance(tagger, FlatTagger)
    delattr(tagger, tagger.base_model_prefix)
    tagger.to_empty(device="cpu")
    tagger.load_state_dict(safetensors.torch.load(base64.b64decode(metadata[_HEAD])))
    vars(tagger)["forward"] = _forward(session)  # of this tagger only: its class has an encoder
    return tagger.eval()


def _forward(session: onnxruntime.InferenceSession) -> Callable[..., TokenClassifierOutput]:
    names = [each.name for each in session.get_inputs()]

    def forward(**inputs: Any) -> TokenClassifierOutput:
        """As `Tagger.forward` without labels."""
        given: dict[str, Tensor] = {"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs}
        arrays = {name: given[name] if name == "word_mask" else given[name].long() for name in names}
        (emissions,) = session.run(["emissions"], {name: array.numpy() for name, array in arrays.items()})
        logits: Any = torch.from_numpy(emissions)  # (B, W, C)
        return TokenClassifierOutput(logits=logits)

    return forward
