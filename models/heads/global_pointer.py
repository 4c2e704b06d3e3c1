"""Efficient GlobalPointer: each span is an entity of a type or not, decided for each type by itself."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from models.heads.span_pairs import Block, SpanPairTagger
from models.rows import keep_rows
from models.tagger import LabelSpace, set_label_names

_RARE = -3.5  # initial bias at each end of a span: before training, a span has a probability of 0.001
_NEVER = -1e30  # score of what does not count; a finite one has a gradient of zero


class GlobalPointerForNer(SpanPairTagger):
    """Efficient GlobalPointer (Su et al. 2022, arXiv:2208.03054).

    A query of the first word and a key of the last one tell whether a span is an entity at all; both are rotated by the
    position of their word, so that the product depends on the distance (RoPE; Su et al. 2021). Scores of each type at
    the first and at the last word are added. A span is an entity of a type if the sum is positive: entities may nest,
    overlap and share words in any way.

    The loss of a text and type is ``log(1 + sum exp(s))`` over the spans that are no entities plus
    ``log(1 + sum exp(-s))`` over those that are. A confidence is the logistic function of the score. It grows with the
    score and is 0.5 at the threshold, but the loss compares spans of a text with each other and does not make it a
    frequency.
    """

    title: ClassVar[str] = "GlobalPointer"

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        if options.span_size % 2:
            raise ValueError(
                f"--span_size {options.span_size}: must be even, since positions rotate pairs of dimensions"
            )
        super().configure(config, labels, options)

    @classmethod
    def num_scores(cls, config: PreTrainedConfig) -> int:
        return 2 * config.span_size + 2 * len(config.id2label or {})  # query, key, scores of first and last word

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.type_scores = nn.Linear(2 * config.span_size, 2 * len(self.types))
        self.post_init()

    def learning_rates(self, options: Any) -> dict[str, float]:
        return {"classifier": options.span_learning_rate, "type_scores": options.span_learning_rate}

    def emissions(self, states: Tensor, word_mask: Tensor) -> Tensor:
        vectors = super().emissions(states, word_mask)  # (B, W, 2 d)
        return torch.cat([vectors, self.type_scores(vectors)], -1)  # (B, W, 2 d + 2 K)

    def pair_scores(self, firsts: Tensor, lasts: Tensor) -> Tensor:
        d, K = self.config.span_size, len(self.types)
        queries, _, first_scores, _ = firsts.split([d, d, K, K], -1)
        _, keys, _, last_scores = lasts.split([d, d, K, K], -1)
        products = _rotated(queries) @ _rotated(keys).transpose(1, 2) / math.sqrt(d)  # (B, w, v)
        return products.unsqueeze(-1) + first_scores.unsqueeze(2) + last_scores.unsqueeze(1)  # (B, w, v, K)

    def block_loss(self, block: Block, gold: Tensor) -> Tensor:
        others = block.counts.unsqueeze(-1) & ~gold
        if block.unknown is not None:
            others = others & ~block.unknown
        sides = (block.scores.masked_fill(~others, _NEVER), (-block.scores).masked_fill(~gold, _NEVER))
        return torch.stack([side.logsumexp((1, 2)) for side in sides], 1)  # (B, 2, K)

    def total_loss(self, shares: Tensor) -> Tensor:
        return torch.cat([shares, torch.zeros_like(shares[:1])]).logsumexp(0).sum((1, 2))

    def found(self, block: Block) -> tuple[Tensor, Tensor]:
        return (block.scores > 0) & block.counts.unsqueeze(-1), block.scores

    def probabilities(self, block: Block) -> Tensor:
        return (block.scores / self.confidence_temperatures[0]).sigmoid()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "type_scores", None):
            nn.init.constant_(self.type_scores.bias, _RARE)

    def _reset(self, module: nn.Module) -> None:
        super()._reset(module)
        if module is self.type_scores:
            nn.init.constant_(self.type_scores.bias, _RARE)

    def select_labels(self, ids: Sequence[int], names: Sequence[str]) -> None:
        keep_rows(self.type_scores, [*ids, *(len(self.types) + index for index in ids)])
        set_label_names(self.config, names)


def _rotated(vectors: Tensor) -> Tensor:
    """Rotate pairs of dimensions by angles that grow with the position of the word: ``(B, W, d) -> (B, W, d)``."""
    _, W, d = vectors.shape
    speeds = 10_000.0 ** (-torch.arange(0, d, 2, device=vectors.device) / d)  # (d / 2,)
    angles = torch.arange(W, device=vectors.device)[:, None] * speeds
    one, other = vectors.chunk(2, -1)
    return torch.cat([one * angles.cos() - other * angles.sin(), other * angles.cos() + one * angles.sin()], -1)
