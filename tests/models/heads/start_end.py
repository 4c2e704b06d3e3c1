"""A head with another target shape: which words start and which end an entity of each type. Entities may nest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig

from common.entities import Annotation, Entity
from common.options import option
from models.tagger import LabelSpace, Prediction, Tagger


@dataclass(frozen=True)
class StartEndOptions:
    start_end_learning_rate: float = option(1e-3, "peak learning rate of the start and end classifiers", at_least=0)
    longest_entity: int = option(20, "words of the longest entity", at_least=1)


class StartEnd(Tagger):
    """Two binary classifiers per type and word. A start belongs to the next end of its type, at its word or later."""

    Options: ClassVar[type] = StartEndOptions
    title: ClassVar[str] = "start/end"

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.post_init()

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        super().configure(config, labels, options)
        config.longest_entity = options.longest_entity

    @classmethod
    def num_scores(cls, config: PreTrainedConfig) -> int:
        return 2 * len(config.id2label or {})  # starts of all K types, then their ends

    def learning_rates(self, options: Any) -> dict[str, float]:
        return {"classifier": options.start_end_learning_rate}

    def encode(self, annotations: Sequence[Annotation]) -> Tensor:
        types, W = self.types, max(1, *(one.words for one in annotations))
        targets = torch.full((len(annotations), W, 2 * len(types)), -100)
        for row, one in enumerate(annotations):
            if one.entities is not None:
                targets[row, : one.words] = 0
                for entity in one.entities:
                    if entity.type in types:
                        place = types.index(entity.type)
                        targets[row, entity.first_word, place] = 1
                        targets[row, entity.last_word, place + len(types)] = 1
                for first, last in one.unannotated:
                    targets[row, first : last + 1] = -100
        return targets  # (B, W, 2K)

    def losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        known = word_mask[..., None] & (targets != -100)  # (B, W, 2K)
        wanted = targets.masked_fill(~known, 0).float()
        losses = F.binary_cross_entropy_with_logits(emissions.float(), wanted, reduction="none")
        return losses.masked_fill(~known, 0).sum((1, 2))  # (B,)

    def predict(self, emissions: Tensor, word_mask: Tensor, with_confidence: bool = False) -> list[Prediction]:
        found = []
        probabilities = emissions.float().sigmoid().cpu()
        for row, W in zip(probabilities, word_mask.sum(1).tolist(), strict=True):
            starts, ends = row[:W].chunk(2, -1)  # (W, K) each
            entities, confidences = list[Entity](), list[float]()
            for first, place in (starts > 0.5).nonzero().tolist():
                last = first + int((ends[first:, place] > 0.5).float().argmax())
                if ends[last, place] > 0.5 and last - first < self.config.longest_entity:
                    open_before = (1 - ends[first:last, place]).prod()  # no earlier end
                    entities.append(Entity(self.types[place], first, last))
                    confidences.append(float(starts[first, place] * open_before * ends[last, place]))
            found.append(Prediction(entities, confidences if with_confidence else []))
        return found
