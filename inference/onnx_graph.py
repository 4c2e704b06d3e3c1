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

from models.heads.flat import FlatTagger
from models.tagger import Tagger
from tools.preparation import casing_types

OUTPUTS = ("tags", "emissions")
_FREE_SIZES = {"word_positions": "words", "word_mask": "words"}


class TaggerGraph(nn.Module):
    """What is exported: a tagger together with its decoding."""

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
    ) -> tuple[Tensor, Tensor]:
        """The best tags ``(B, W)``, -100 where there is no word, and the scores of all ``(B, W, C)``."""
        logits = self.tagger(input_ids, attention_mask, token_type_ids, word_positions, word_mask).logits  # (B, W, C)
        return self.tagger.decode(logits, word_mask).masked_fill(~word_mask, -100), logits


def write_onnx(tagger: FlatTagger, path: Path) -> None:
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
    program.model.metadata_props["tags"] = json.dumps(tagger.label_names, ensure_ascii=False)
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


def random_inputs(tagger: Tagger, B: int, T: int, W: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A batch, padded on the right, whose longest row has T tokens and whose fullest one W words.

    Raises:
        ValueError: there are more words than tokens.
    """
    if W > T:
        raise ValueError(f"{W} words cannot begin at {T} tokens")
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
    kinds = getattr(tagger.config, "type_vocab_size", 2)
    if tagger.takes_token_types and kinds > 1:
        inputs["token_type_ids"] = torch.randint(0, kinds, (B, T), generator=generator) * present
    return inputs
