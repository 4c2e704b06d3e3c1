"""Tiny random encoders of many families with tokenizers of their kinds, and batches for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, set_seed

from common.entities import Annotation
from common.tag_schemes import tags_to_entities
from models.tagger import LabelSpace, Tagger

AnyTagger = TypeVar("AnyTagger", bound=Tagger)
VOCABULARY = 60
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
_COMMON = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 40}
_SIZES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 32, **_COMMON},
    "roberta": {"hidden_size": 32, **_COMMON},
    "electra": {"hidden_size": 32, "embedding_size": 16, **_COMMON},
    "albert": {"hidden_size": 32, "embedding_size": 16, **_COMMON},
    "deberta-v2": {"hidden_size": 32, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], **_COMMON},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 40},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
}
FAMILIES = sorted(_SIZES)  # those that every test of a mechanism tries
_SPECIAL: dict[str, dict[str, Any]] = {
    "big_bird": {"block_size": 4},
    "canine": {"num_hash_buckets": 64, "local_transformer_stride": 16},
    "convbert": {"embedding_size": 16},
    "ernie": {},
    "esm": {"mask_token_id": 4, "position_embedding_type": "rotary"},
    "eurobert": {"num_key_value_heads": 2},
    "fnet": {},
    "gte": {},
    "jina_embeddings_v3": {},
    "longformer": {"attention_window": 8},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {"cls_token_id": 0, "sep_token_id": 0, "local_attention": 8},
    "mpnet": {},
    "nomic_bert": {},
    "nystromformer": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "xlm-roberta": {},
    "yoso": {},
}
_BESIDES = {"hidden_size": 32, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, **_COMMON}
_SIZES |= {family: {**_BESIDES, **special} for family, special in _SPECIAL.items()}
EVERY_FAMILY = sorted(_SIZES)
PREFIXES = {
    "bert": "bert",
    "roberta": "roberta",
    "electra": "electra",
    "albert": "albert",
    "deberta-v2": "deberta",
    "distilbert": "distilbert",
    "xlnet": "transformer",
}


def tiny_config(family: str, **changes: Any) -> PreTrainedConfig:
    config = AutoConfig.for_model(family, vocab_size=VOCABULARY, **{**_SIZES[family], **changes})
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: index for index, label in enumerate(LABELS)}
    return config


def tiny_tagger(model_class: type[AnyTagger], family: str = "bert", **changes: Any) -> AnyTagger:
    """A tagger with random weights, ready to be asked (dropout off)."""
    set_seed(7)
    config = tiny_config(family, **changes)
    if model_class.nests:  # flat heads need no more than `LABELS`, and these without constraints
        model_class.configure(config, LabelSpace(["PER", "LOC"], "bio"), model_class.Options())
    model = model_class(config)
    model.eval()
    return model


@dataclass
class Row:
    """One window: its tokens, where its words begin, and their labels."""

    tokens: Tensor
    positions: Tensor
    labels: Tensor

    @property
    def lengths(self) -> Tensor:
        """Pieces of each word: all up to the next one, or to the last token, which is special."""
        return self.positions.diff(append=torch.tensor([max(len(self.tokens) - 1, int(self.positions[-1]) + 1)]))


def random_rows(lengths: Sequence[int], seed: int = 0) -> list[Row]:
    """Windows of so many tokens, of which about half begin a word."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for length in lengths:
        words = max(1, length // 2)
        positions = (torch.randperm(length - 1, generator=generator)[:words] + 1).sort().values
        labels = torch.randint(0, len(LABELS), (words,), generator=generator)
        rows.append(Row(torch.randint(6, VOCABULARY, (length,), generator=generator), positions, labels))
    return rows


def collate(rows: Sequence[Row], config: PreTrainedConfig, extra_padding: int = 0) -> dict[str, Tensor]:
    """Pads windows to one batch, on the left for XLNet, with ``extra_padding`` beyond the longest."""
    B = len(rows)
    T = max(len(row.tokens) for row in rows) + extra_padding
    W = max(len(row.positions) for row in rows) + extra_padding
    batch = {
        "input_ids": torch.full((B, T), int(config.pad_token_id or 0)),
        "attention_mask": torch.zeros(B, T, dtype=torch.long),
        "token_type_ids": torch.zeros(B, T, dtype=torch.long),
        "word_positions": torch.zeros(B, W, dtype=torch.long),
        "word_lengths": torch.zeros(B, W, dtype=torch.long),
        "word_mask": torch.zeros(B, W, dtype=torch.bool),
        "labels": torch.full((B, W), -100),
    }
    for index, row in enumerate(rows):
        length, words = len(row.tokens), len(row.positions)
        start = T - length if config.model_type == "xlnet" else 0
        batch["input_ids"][index, start : start + length] = row.tokens
        batch["attention_mask"][index, start : start + length] = 1
        batch["word_positions"][index, :words] = row.positions + start
        batch["word_lengths"][index, :words] = row.lengths
        batch["word_mask"][index, :words] = True
        batch["labels"][index, :words] = row.labels
    return batch


def batch_of(model: Tagger, rows: Sequence[Row], extra_padding: int = 0) -> dict[str, Tensor]:
    """Pads windows to one batch, with the targets of the model's head."""
    batch = collate(rows, model.config, extra_padding)
    if model.nests:
        tags = [[LABELS[label] for label in row.labels] for row in rows]
        targets = model.encode([Annotation(len(row), tags_to_entities(row)) for row in tags])  # (B, W, ...)
        W = batch["word_mask"].size(1)
        batch["labels"] = targets.new_full((len(rows), W, *targets.shape[2:]), -100)
        batch["labels"][:, : targets.size(1)] = targets
    return batch


def scores(model: Tagger, batch: dict[str, Tensor], **changes: Any) -> tuple[Tensor, Tensor]:
    """Logits and loss of a batch; no loss is a zero."""
    with torch.no_grad():
        output = model(**{**batch, **changes})
    assert output.logits is not None
    return output.logits, output.loss if output.loss is not None else torch.zeros(())
