"""Head that labels the words at which entities start, and those at which they end."""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedConfig

from common.entities import Annotation, Entity, in_text_order, text_order
from common.options import option
from common.tag_schemes import IGNORED_LABEL, OUTSIDE
from models.heads.class_weights import class_weights, configure_class_weights, warn_of_other_weights
from models.heads.softmax import TokenLossOptions, TokenLossTagger
from models.tagger import LabelSpace, Prediction, Uncertainty, keep_rows, set_label_names


@dataclass(frozen=True)
class SpanOptions(TokenLossOptions):
    soft_label: bool = option(
        True, "the end classifier sees the probabilities of a word's start labels, not the number of the best label"
    )


class BertSpanForNer(TokenLossTagger):
    """Encoder, dropout, and two classifiers per word: which type of entity starts here, and which ends here.

    The end classifier also sees the start labels: in training those of the annotation, otherwise the model's own. Names
    of config and weights are those of BERT-NER-Pytorch. The L labels in ``config.id2label`` are O and the types.

    An entity is a start and the nearest end of its type, at its word or later. So several starts may share one end, and
    entities of different types may overlap. Two entities cannot be expressed together if they start at one word, if
    they end at one word and have different types, or if one ends inside another of its type, unless both end together.
    """

    Options: ClassVar[type] = SpanOptions
    title: ClassVar[str] = "span"
    script: ClassVar[str] = "run_ner_span.py"

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        super().configure(config, labels, options)
        set_label_names(config, [OUTSIDE, *labels.types])
        config.soft_label = options.soft_label
        configure_class_weights(config, labels, options.class_weights)

    @classmethod
    def override(cls, config: PreTrainedConfig, options: Any) -> None:
        super().override(config, options)
        warn_of_other_weights(config, options.class_weights)

    @classmethod
    def read_labels(cls, names: Sequence[str]) -> list[str]:
        if names and OUTSIDE not in names:
            raise ValueError(f"a span head needs the label {OUTSIDE} besides its types {', '.join(names)}")
        return list(names)

    @classmethod
    def num_scores(cls, config: PreTrainedConfig) -> int:
        return 2 * len(config.id2label or {})  # of starts, then of ends

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        del self.classifier  # these two take its place
        self.soft_label = bool(getattr(config, "soft_label", True))
        L = len(self.label_names)
        size = self.width + (L if self.soft_label else 1)
        self.start_fc = nn.Sequential(OrderedDict(dense=nn.Linear(self.width, L)))
        self.end_fc = nn.Sequential(
            OrderedDict(
                dense_0=nn.Linear(size, size),
                activation=nn.Tanh(),
                LayerNorm=nn.LayerNorm(size),
                dense_1=nn.Linear(size, L),
            )
        )
        self.post_init()

    @property
    def head_weight(self) -> Tensor:
        return cast(nn.Linear, self.start_fc[0]).weight

    @property
    def types(self) -> list[str]:
        return [name for name in self.label_names if name != OUTSIDE]

    def emissions(self, states: Tensor, word_mask: Tensor) -> Tensor:
        return self._scores(states, None)

    def training_emissions(self, states: Tensor, word_mask: Tensor, targets: Tensor) -> Tensor:
        return self._scores(states, targets[..., 0])

    def _scores(self, states: Tensor, start_labels: Tensor | None) -> Tensor:
        """Scores ``(B, W, 2 L)`` of starts and ends.

        Args:
            states: ``(B, W, H)``.
            start_labels: ``(B, W)`` for the end classifier, which sees the model's own where they are -100 or missing.
        """
        states = self.dropout(states)
        starts = self.start_fc(states)  # (B, W, L)
        L = starts.size(-1)
        shown = starts.float().softmax(-1) if self.soft_label else starts.argmax(-1, keepdim=True).float()
        if start_labels is not None:
            labels = start_labels.clamp(min=0)
            gold = F.one_hot(labels, L).float() if self.soft_label else labels.unsqueeze(-1).float()
            shown = torch.where((start_labels != IGNORED_LABEL).unsqueeze(-1), gold, shown)
        ends = self.end_fc(torch.cat([states, shown.to(states.dtype)], -1))
        return torch.cat([starts, ends], -1)

    def expressible(self, entities: Sequence[Entity]) -> list[Entity]:
        kept: list[Entity] = []
        starts: set[int] = set()
        ends: dict[int, str] = {}
        ends_of: defaultdict[str, set[int]] = defaultdict(set)
        before_end: defaultdict[str, set[int]] = defaultdict(set)  # words of entities of the type but their last ones
        for entity in sorted(in_text_order(entities), key=lambda one: -one.words):
            own_type, first, last = entity
            own_words = range(first, last)
            is_free = first not in starts and ends.get(last, own_type) == own_type
            if is_free and last not in before_end[own_type] and ends_of[own_type].isdisjoint(own_words):
                kept.append(entity)
                starts.add(first)
                ends[last] = own_type
                ends_of[own_type].add(last)
                before_end[own_type].update(own_words)
        return kept

    def encode(self, annotations: Sequence[Annotation]) -> Tensor:
        ids = {name: index for index, name in enumerate(self.label_names)}
        W = max(1, *(one.words for one in annotations))
        targets = np.full((len(annotations), W, 2), IGNORED_LABEL)
        for row, annotation in zip(targets, annotations, strict=True):
            known = annotation.of_types(ids)
            if known.entities is None:
                continue
            row[: known.words] = ids[OUTSIDE]
            for entity in self.expressible(known.entities):
                row[entity.first_word, 0] = row[entity.last_word, 1] = ids[entity.type]
            for first, last in known.unannotated:
                row[first : last + 1] = IGNORED_LABEL
        return torch.from_numpy(targets)  # (B, W, 2)

    def losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        labels = targets.masked_fill(~word_mask.unsqueeze(-1), IGNORED_LABEL)
        weights = class_weights(self.config, self.label_names, emissions.device)  # (L,)
        return self.token_losses(emissions.unflatten(-1, (2, -1)), labels, weights).sum((1, 2)) / 2  # (B,)

    def predict(self, emissions: Tensor, word_mask: Tensor, with_confidence: bool = False) -> list[Prediction]:
        """Predict entities; a confidence is the probability that the start finds exactly this end.

        Given the emissions, the labels of words are independent: the word has its start label, the last word its end
        label, and no word between them ends an entity of the type.
        """
        found = []
        for row, W in zip(self._probabilities(emissions), word_mask.sum(1).tolist(), strict=True):
            best = row[:W].argmax(-1)  # (W, 2)
            entities = []
            for label, name in enumerate(self.label_names):
                firsts, lasts = ((best[:, side] == label).nonzero()[0] for side in (0, 1))
                if name != OUTSIDE and len(firsts):
                    places = np.searchsorted(lasts, firsts)
                    pairs = zip(firsts[places < len(lasts)], lasts[places[places < len(lasts)]], strict=True)
                    entities += [Entity(name, int(first), int(last)) for first, last in pairs]
            entities = in_text_order(entities)
            confidences = [self._confidence(row, one) for one in entities] if with_confidence else []
            found.append(Prediction(entities, confidences))
        return found

    def _confidence(self, probabilities: Any, entity: Entity) -> float:
        starts, ends = probabilities[:, :, self.label_names.index(entity.type)].T  # (W,) each
        first, last = entity.first_word, entity.last_word
        return float(starts[first] * (1 - ends[first:last]).prod() * ends[last])

    def candidates(self, emissions: Tensor, word_mask: Tensor, threshold: float) -> list[list[tuple[Entity, float]]]:
        found = []
        for row, W in zip(self._probabilities(emissions), word_mask.sum(1).tolist(), strict=True):
            candidates = []
            for label, name in enumerate(self.label_names):
                starts, ends = row[:W, :, label].T  # (W,) each
                for first in (starts >= threshold).nonzero()[0] if name != OUTSIDE else ():
                    probability = starts[first]  # that it starts here, and has not ended
                    for last in range(first, W):
                        if probability * ends[last] >= threshold:
                            candidates.append((Entity(name, int(first), last), float(probability * ends[last])))
                        probability = probability * (1 - ends[last])
                        if probability < threshold:
                            break
            found.append(sorted(candidates, key=lambda one: text_order(one[0])))
        return found

    def _probabilities(self, emissions: Tensor) -> NDArray[np.float32]:
        """Probabilities of start and end labels: ``(B, W, 2, L)``."""
        scores = emissions.detach().float().unflatten(-1, (2, -1)) / self.confidence_temperatures[0]
        return scores.softmax(-1).cpu().numpy()

    def uncertainty(self, emissions: Tensor, word_mask: Tensor) -> Uncertainty:
        """The labels of starts and ends are independent, given the emissions."""
        scores = emissions.float() / self.confidence_temperatures[0]
        logs = scores.unflatten(-1, (2, -1)).log_softmax(-1) * word_mask[..., None, None]  # (B, W, 2, L)
        entropy = -(logs.exp() * logs).sum((1, 2, 3))
        return Uncertainty(entropy, logs.amax(-1).sum((1, 2)))

    def log_probabilities(self, emissions: Tensor) -> Tensor:
        """Log-softmax of the start labels and of the end labels: ``(B, W, 2 L)``."""
        return emissions.float().unflatten(-1, (2, -1)).log_softmax(-1).flatten(-2)

    def select_labels(self, ids: Sequence[int], names: Sequence[str]) -> None:
        """Bring the labels into another order.

        Raises:
            ValueError: labels are left out, or the end classifier sees their numbers.
        """
        if not self.soft_label or len(ids) < len(self.label_names):
            raise ValueError(f"{type(self).__name__} cannot leave out or reorder its labels {self.label_names}")
        for layer in (self.start_fc[0], self.end_fc[-1]):
            keep_rows(cast(nn.Linear, layer), ids)
        columns = [*range(self.width), *(self.width + index for index in ids)]
        first = cast(nn.Linear, self.end_fc[0])
        first.weight = nn.Parameter(first.weight.detach()[:, columns])
        set_label_names(self.config, names)
