"""Head with one CRF that runs once for each entity type, so that entities of different types may overlap."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedConfig

from common.entities import Annotation, Entity, disjoint, in_text_order, outermost, text_order
from common.tag_schemes import MARKUPS, OUTSIDE, tag_set, tags_to_entities
from models.heads.crf import BertCrfForNer
from models.heads.transitions import legal_followers
from models.rows import keep_rows, take_rows
from models.tagger import LabelSpace, Prediction, Tagger, Uncertainty, set_label_names

_NO_TYPE = ""  # of the tags of a chain, B and I, which the chains of all types share


class BertCrfPerTypeForNer(BertCrfForNer):
    """Encoder, dropout, a linear layer for the emissions, and a CRF over the tags of one type, shared by all types.

    Each word has K x T scores: of the T tags of the first type, and so on. The K types are folded into the batch, and
    the CRF runs over ``(B * K, W, T)``. Of overlapping entities of one type only the longest can be expressed.

    ``config.id2label`` names the types, ``config.type_tags`` the tags of each, ``config.crf_legal`` the ids of those
    that may follow each other.
    """

    title: ClassVar[str] = "CRF per type"
    nests: ClassVar[bool] = True

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        if options.class_weights:
            raise ValueError("--class_weights does not work with --head crf_per_type, whose types share the weights")
        set_label_names(config, labels.types)
        config.tag_markup = labels.markup
        config.type_tags = tag_set([_NO_TYPE], MARKUPS[labels.markup], labels.single_words)
        config.crf_legal = legal_followers(config.type_tags, labels.markup) if options.crf_constraints else None

    @classmethod
    def read_labels(cls, names: Sequence[str]) -> list[str]:
        return list(names)

    @classmethod
    def num_scores(cls, config: PreTrainedConfig) -> int:
        return len(config.id2label or {}) * len(config.type_tags)

    @property
    def types(self) -> list[str]:
        return self.label_names

    @property
    def tag_names(self) -> list[str]:
        return list(self.config.type_tags)

    @property
    def missing_labels(self) -> list[str]:
        return []

    def expressible(self, entities: Sequence[Entity]) -> list[Entity]:
        types = dict.fromkeys(one.type for one in entities)
        return [one for name in types for one in outermost([other for other in entities if other.type == name])]

    def compatible(self, entities: Sequence[Entity]) -> list[Entity]:
        types = dict.fromkeys(one.type for one in entities)
        kept = {one for name in types for one in disjoint([other for other in entities if other.type == name])}
        return [one for one in entities if one in kept]

    def encode(self, annotations: Sequence[Annotation]) -> Tensor:
        types = self.types
        known = [one.of_types(types) for one in annotations]
        chains = [_chain(one, name) for one in known for name in types]  # B * K
        return super().encode(chains).unflatten(0, (-1, len(types))).transpose(1, 2)  # (B, W, K) or (B, W, K, T)

    def losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        chains, masks = self._folded(emissions, word_mask)
        losses = super().losses(chains, targets.transpose(1, 2).flatten(0, 1), masks)  # (B * K,)
        return losses.view(emissions.size(0), -1).sum(1)  # (B,)

    def expected_entity_words(self, emissions: Tensor, word_mask: Tensor) -> Tensor:
        of_chains = super().expected_entity_words(*self._folded(emissions, word_mask))  # (B * K,)
        return of_chains.view(len(emissions), -1).sum(1)

    def decode(self, emissions: Tensor, word_mask: Tensor) -> Tensor:
        """Best tags of each type: ``(B, W, K * T), (B, W) -> (B, W, K)``; arbitrary for masked words."""
        B, W, _ = emissions.shape
        return super().decode(*self._folded(emissions, word_mask)).view(B, len(self.types), W).transpose(1, 2)

    def predict(self, emissions: Tensor, word_mask: Tensor, with_confidence: bool = False) -> list[Prediction]:
        best = self.decode(emissions, word_mask).transpose(1, 2).cpu().numpy()  # (B, K, W)
        outside = self.tag_names.index(OUTSIDE)
        entities = [
            in_text_order(
                Entity(name, first, last)
                for name, path in zip(self.types, row[:, :W], strict=True)
                if (path != outside).any()  # most types are in few texts
                for _, first, last in tags_to_entities([self.tag_names[tag] for tag in path])
            )
            for row, W in zip(best, word_mask.sum(1).tolist(), strict=True)
        ]
        confidences: list[list[float]] = [[] for _ in entities]
        if with_confidence:
            confidences = self.entity_confidences(emissions, word_mask, entities)
        return [Prediction(*found) for found in zip(entities, confidences, strict=True)]

    def _confidences_at(
        self, places: Sequence[tuple[int, Entity]], emissions: Tensor, word_mask: Tensor
    ) -> list[float]:
        if not places:
            return []
        types, K = self.types, len(self.types)
        chains = [row * K + types.index(entity.type) for row, entity in places]
        used = {chain: index for index, chain in enumerate(dict.fromkeys(chains))}  # the others need no sweep
        folded = (tensor[list(used)] for tensor in self._folded(emissions, word_mask))
        entities = (entity._replace(type=_NO_TYPE) for _, entity in places)
        return super()._confidences_at(
            [(used[chain], one) for chain, one in zip(chains, entities, strict=True)], *folded
        )

    def candidates(self, emissions: Tensor, word_mask: Tensor, threshold: float) -> list[list[tuple[Entity, float]]]:
        chains = iter(super().candidates(*self._folded(emissions, word_mask), threshold))  # B * K
        found = [
            [(entity._replace(type=name), value) for name in self.types for entity, value in next(chains)]
            for _ in emissions
        ]
        return [sorted(row, key=lambda one: text_order(one[0])) for row in found]

    def outside_confidences(
        self, emissions: Tensor, word_mask: Tensor, spans: Sequence[Sequence[tuple[int, int]]]
    ) -> list[list[float]]:
        K = len(self.types)
        of_chains = super().outside_confidences(
            *self._folded(emissions, word_mask), [found for found in spans for _ in range(K)]
        )
        rows = (of_chains[K * row : K * (row + 1)] for row in range(len(spans)))
        return [[math.prod(of_types) for of_types in zip(*row, strict=True)] for row in rows]  # they are independent

    def uncertainty(self, emissions: Tensor, word_mask: Tensor) -> Uncertainty:
        of_chains = super().uncertainty(*self._folded(emissions, word_mask))
        return Uncertainty(*(part.view(len(emissions), -1).sum(1) for part in of_chains))  # they are independent

    def log_probabilities(self, emissions: Tensor) -> Tensor:
        """Log-softmax of each word's emissions, for each type by itself: ``(B, W, K * T)``."""
        return emissions.unflatten(-1, (len(self.types), -1)).float().log_softmax(-1).flatten(-2)

    def keep_labels_of(self, former: Tagger) -> None:
        T = len(self.tag_names)
        rows = [self.types.index(name) * T + tag for name in former.label_names for tag in range(T)]
        take_rows(self.classifier, former.classifier, rows)
        self.crf.load_state_dict(former.get_submodule("crf").state_dict())
        if self.word_options.bilstm_size:
            self.bilstm.load_state_dict(former.bilstm.state_dict())

    def select_labels(self, ids: Sequence[int], names: Sequence[str]) -> None:
        """Keep these types only; the CRF, which all types share, stays as it is."""
        T = len(self.tag_names)
        keep_rows(self.classifier, [index * T + tag for index in ids for tag in range(T)])
        set_label_names(self.config, names)

    def _folded(self, emissions: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Chains of all types: ``(B, W, K * T), (B, W) -> (B * K, W, T), (B * K, W)``."""
        K = len(self.types)
        chains = emissions.unflatten(-1, (K, -1)).transpose(1, 2).flatten(0, 1)
        return chains, word_mask[:, None].expand(-1, K, -1).flatten(0, 1)


def _chain(annotation: Annotation, entity_type: str) -> Annotation:
    """What is known of one type, without its name."""
    if annotation.entities is None:
        return annotation
    own = [one._replace(type=_NO_TYPE) for one in annotation.entities if one.type == entity_type]
    complete = frozenset[str]() if annotation.open_types([entity_type]) else None
    return Annotation(annotation.words, own, annotation.unannotated, complete)
