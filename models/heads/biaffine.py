"""Biaffine head: each span is an entity of one type or none, and entities may nest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig

from common.entities import Entity
from common.options import option
from models.heads.span_pairs import Block, SpanPairOptions, SpanPairTagger
from models.tagger import set_label_names


@dataclass(frozen=True)
class BiaffineOptions(SpanPairOptions):
    span_size: int = option(150, "size of the vector of a first word, and of that of a last word", at_least=2)


class Biaffine(nn.Module):
    """``[x, 1]^T U_s [y, 1]`` for S matrices: bilinear, linear and constant terms."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, size + 1, size + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=1 / self.weight.size(-1))

    def forward(self, firsts: Tensor, lasts: Tensor) -> Tensor:
        """``(B, w, d), (B, v, d) -> (B, w, v, S)``."""
        firsts, lasts = F.pad(firsts, (0, 1), value=1.0), F.pad(lasts, (0, 1), value=1.0)
        turned = torch.einsum("bip,spq->bisq", firsts, self.weight.float())
        return torch.einsum("bisq,bjq->bijs", turned, lasts)


class BiaffineForNer(SpanPairTagger):
    """Encoder, a layer for first words and one for last words, and biaffine scores (Yu et al. 2020, arXiv:2005.07150).

    Each span has a softmax over no entity and the K types; the loss is its cross-entropy. Spans whose best class is a
    type are accepted in the order of that score, unless they cross one that is accepted (sec. 3). A confidence is the
    probability of the type of the span by itself.
    """

    Options: ClassVar[type] = BiaffineOptions
    title: ClassVar[str] = "biaffine"
    scores_a_type: ClassVar[int] = 1  # no entity, which comes first

    @classmethod
    def num_scores(cls, config: PreTrainedConfig) -> int:
        return 2 * int(config.span_size)

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.biaffine = Biaffine(config.span_size, 1 + len(self.types))
        self.post_init()

    def learning_rates(self, options: Any) -> dict[str, float]:
        return {"classifier": options.span_learning_rate, "biaffine": options.span_learning_rate}

    def emissions(self, states: Tensor, word_mask: Tensor) -> Tensor:
        return self.dropout(super().emissions(states, word_mask).relu())  # (B, W, 2 d)

    def pair_scores(self, firsts: Tensor, lasts: Tensor) -> Tensor:
        scores: Tensor = self.biaffine(firsts.chunk(2, -1)[0], lasts.chunk(2, -1)[1])
        return scores  # (B, w, v, 1 + K)

    def block_loss(self, block: Block, gold: Tensor) -> Tensor:
        classes = F.pad(gold, (1, 0)).int().argmax(-1)  # (B, w, v), 0 for none
        losses = F.cross_entropy(block.scores.movedim(-1, 1), classes, reduction="none")
        if block.unknown is not None:  # a span that is no annotated entity is none, or of one of these types
            may_be = F.pad(block.unknown, (1, 0), value=True)  # (B, w, 1, 1 + K)
            inside = block.scores.masked_fill(~may_be, -torch.inf).logsumexp(-1)
            losses = torch.where(classes == 0, block.scores.logsumexp(-1) - inside, losses)
        return losses.masked_fill(~block.counts, 0).sum((1, 2))  # (B,)

    def total_loss(self, shares: Tensor) -> Tensor:
        return shares.sum(0)

    def found(self, block: Block) -> tuple[Tensor, Tensor]:
        best = block.scores.argmax(-1, keepdim=True)  # (B, w, v, 1)
        classes = torch.arange(1, block.scores.size(-1), device=best.device)  # (K,)
        return (best == classes) & block.counts.unsqueeze(-1), block.scores[..., 1:]

    def probabilities(self, block: Block) -> Tensor:
        return (block.scores / self.confidence_temperatures[0]).softmax(-1)[..., 1:]

    def compatible(self, entities: Sequence[Entity]) -> list[Entity]:
        """Leave out entities that cross one that is given before, or have its words."""
        kept: list[Entity] = []
        furthest: dict[int, int] = {}  # first word -> the last word of the longest that is kept
        earliest: dict[int, int] = {}  # last word -> the first word of the longest that is kept
        spans: set[tuple[int, int]] = set()
        for entity in entities:
            _, first, last = entity
            crosses = any(furthest.get(word, -1) > last for word in range(first + 1, last + 1))
            crosses = crosses or any(earliest.get(word, first) < first for word in range(first, last))
            if not crosses and (first, last) not in spans:
                kept.append(entity)
                spans.add((first, last))
                furthest[first] = max(last, furthest.get(first, -1))
                earliest[last] = min(first, earliest.get(last, first))
        return kept

    def select_labels(self, ids: Sequence[int], names: Sequence[str]) -> None:
        weight = self.biaffine.weight
        self.biaffine.weight = nn.Parameter(weight.detach()[[0, *(1 + index for index in ids)]])
        set_label_names(self.config, names)
