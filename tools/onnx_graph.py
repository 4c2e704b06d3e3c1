"""A tagger as one ONNX graph: token ids in, tags and emissions out, rows, tokens and words of any number."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.tagger import Tagger
from tools.casing import casing_types
from tools.onnx_inputs import random_inputs

OUTPUTS = ("tags", "emissions")
_FREE_SIZES = {"word_positions": "words", "word_mask": "words"}


class TaggerGraph(nn.Module):
    """What is exported: a tagger together with its decoding."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.tagger = tagger

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        word_positions: Tensor,
        word_mask: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The best tags ``(B, W)``, -100 where there is no word, and the scores of all ``(B, W, C)``."""
        logits = self.tagger(input_ids, attention_mask, token_type_ids, word_positions, word_mask).logits  # (B, W, C)
        return self.tagger.decode(logits, word_mask).masked_fill(~word_mask, -100), logits


def write_onnx(tagger: Tagger, path: Path) -> None:
    """Writes the file; beside it, in ``FILE.data``, the weights of a model of 2 GiB or more.

    The metadata holds the names of the tags in the order of their ids, their scheme, the token types that tell the
    casing of words, and the windows and words of the evaluation as far as the config has them.
    """
    example = random_inputs(tagger, B=2, T=6, W=4, generator=torch.Generator().manual_seed(0))
    sizes = {name: Dim(name) for name in ("batch", "tokens", "words")}
    shapes = {name: {0: sizes["batch"], 1: sizes[_FREE_SIZES.get(name, "tokens")]} for name in example}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            TaggerGraph(tagger).eval(),
            kwargs=example,
            output_names=OUTPUTS,
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props["tags"] = json.dumps(tagger.tag_names, ensure_ascii=False)
    program.model.metadata_props["casing_types"] = json.dumps(casing_types(tagger))
    program.model.metadata_props["markup"] = getattr(tagger.config, "tag_markup", "")
    for name in ("eval_max_seq_length", "window_overlap", "word_unit", "kept_words"):
        if hasattr(tagger.config, name):
            program.model.metadata_props[name] = json.dumps(getattr(tagger.config, name), ensure_ascii=False)
    program.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that are not there, and of sizes that it finds to be the same."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
