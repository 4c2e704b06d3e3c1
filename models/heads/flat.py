"""Base class of heads that choose one tag per word: tag encoding and decoding, and exact entity confidences."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from common.entities import Annotation, Entity, disjoint, outermost, text_order
from common.tag_dialects import canonical_tags
from common.tag_schemes import (
    IGNORED_LABEL,
    MARKUPS,
    MISSED,
    OUTSIDE,
    SCHEMES,
    TagEncoder,
    TagScheme,
    begins_entity,
    entities_to_tags,
    markup_of_tags,
    split_tag,
    tag_set,
    tags_to_entities,
)
from models.crf import CRF, SpanTags
from models.heads.class_weights import FlatOptions, class_weights, configure_class_weights, warn_of_other_weights
from models.rows import take_rows
from models.tagger import LabelSpace, Prediction, Tagger, Uncertainty, set_label_names

logger = logging.getLogger(__name__)
_SPANS_AT_ONCE = 4096  # bounds memory; each call traverses the whole lattice once


class Expectations(NamedTuple):
    """Expected counts under a distribution over tag sequences, which are all that a linear-chain student needs.

    Args:
        tags: probability of each tag of each word, ``(B, W, C)``, 0 where masked.
        transitions: expected number of transitions from tag to tag in the whole batch, ``(C, C)``.
    """

    tags: Tensor
    transitions: Tensor


class FlatTagger(Tagger):
    """A tagger whose labels are the tags of a scheme. Of overlapping entities it can express only the longest.

    Subclasses implement `losses` and `decode`, and `lattice` unless words are independent.

    ``log_missed`` is the log-probability that annotators overlook a word of an entity, where they may have done so; the
    loss in training takes it into account.
    """

    Options: ClassVar[type] = FlatOptions
    nests: ClassVar[bool] = False
    unexportable: ClassVar[str] = ""
    log_missed: float = 0.0

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        set_label_names(config, tag_set(labels.types, MARKUPS[labels.markup], labels.single_words))
        config.tag_markup = labels.markup
        configure_class_weights(config, labels, getattr(options, "class_weights", ""))

    @classmethod
    def override(cls, config: PreTrainedConfig, options: Any) -> None:
        """Warns of other class weights than those of the training, with which the loss is computed."""
        warn_of_other_weights(config, getattr(options, "class_weights", ""))

    @classmethod
    def read_labels(cls, names: Sequence[str]) -> list[str]:
        """Canonical tags of labels in any notation; empty for labels that are no tags, such as ``X`` or ``[CLS]``."""
        dialect = canonical_tags(names, special=True)
        if dialect.description:
            logger.info("Labels of the model: %s", dialect.description)
        return [dialect.tags[name] for name in names]

    @property
    def types(self) -> list[str]:
        return list(dict.fromkeys(split_tag(tag)[1] for tag in self.label_names if tag != OUTSIDE))

    @property
    def tag_names(self) -> list[str]:
        """Tags that `decode` chooses from, by id."""
        return self.label_names

    @property
    def missing_labels(self) -> list[str]:
        return [tag for tag in tag_set(self.types, MARKUPS[self.markup]) if tag not in self.label_names]

    @property
    def markup(self) -> str:
        """The tag scheme, one of ``MARKUPS``: that of the config, or else inferred from the tags."""
        return str(getattr(self.config, "tag_markup", None) or markup_of_tags(self.label_names, "bio"))

    def expressible(self, entities: Sequence[Entity]) -> list[Entity]:
        return outermost(entities)

    def compatible(self, entities: Sequence[Entity]) -> list[Entity]:
        return disjoint(entities)

    def encode(self, annotations: Sequence[Annotation]) -> Tensor:
        """Encode annotations as tags ``(B, W)``, or as sets of tags ``(B, W, C)`` where some types are not complete."""
        encoder = _tag_encoder(tuple(self.tag_names), self.markup)
        return encoder.sets(annotations) if self._needs_sets(annotations) else encoder(annotations)

    def _needs_sets(self, annotations: Sequence[Annotation]) -> bool:
        """Whether words have sets of tags; words of which nothing is known need none if words are independent."""
        return any(one.complete is not None for one in annotations)

    def _of_annotation(self, targets: Tensor) -> Tensor | None:
        """Log-probability that a word with this tag is annotated as it is ``(B, W, C)``; ``None``: 0 for all."""
        if not (self.training and self.log_missed):
            return None
        return (targets == MISSED) * self.log_missed

    def _tag_weights(self, device: torch.device) -> Tensor | None:
        """Weight of each tag in the loss ``(C,)``; ``None`` without ``--class_weights``."""
        return class_weights(self.config, [split_tag(tag)[1] or OUTSIDE for tag in self.tag_names], device)

    def keep_labels_of(self, former: Tagger) -> None:
        own = [self.label_names.index(name) for name in former.label_names]
        take_rows(self.classifier, former.classifier, own)
        if self.word_options.bilstm_size:
            self.bilstm.load_state_dict(former.bilstm.state_dict())

    def decode(self, emissions: Tensor, word_mask: Tensor) -> Tensor:
        """Best tags: ``(B, W, C), (B, W) -> (B, W)``; arbitrary for masked words."""
        raise NotImplementedError

    def lattice(self) -> CRF:
        """The CRF whose distribution over tag sequences gives the confidences; by default, words are independent.

        It reads emissions divided by the first of ``config.confidence_temperatures``; its own scores are divided by the
        second (``tools/calibrate.py``).
        """
        with torch.device("meta"):  # draws no random numbers
            crf = CRF(len(self.tag_names), batch_first=True)
        crf.to_empty(device=self.device)
        for scores in crf.parameters():
            nn.init.zeros_(scores)
        return crf

    def calibrated(self, emissions: Tensor) -> Tensor:
        """The emissions that `lattice` reads."""
        return emissions / self.confidence_temperatures[0]

    def expected_entity_words(self, emissions: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the expected number of words in entities of each row, differentiable: ``(B, W, C), (B, W) -> (B,)``.

        Where entities of different types may overlap, a word counts once for each type.
        """
        raise ValueError(f"{type(self).__name__} does not tell how many words it expects in entities")

    def expectations(self, emissions: Tensor, word_mask: Tensor, temperature: float = 1.0) -> Expectations:
        """What a student learns from this head's distribution over the tag sequences of a batch.

        Args:
            emissions, word_mask: ``(B, W, C)`` and ``(B, W)``.
            temperature: divides the scores of independent tags; more than 1 makes the distribution flatter.

        Raises:
            ValueError: the head cannot be distilled, or has no such temperature.
        """
        raise ValueError(f"{type(self).__name__} cannot be a teacher")

    def distillation_loss(
        self, emissions: Tensor, word_mask: Tensor, taught: Expectations, temperature: float = 1.0
    ) -> Tensor:
        """Cross-entropy between a teacher's distribution and that of this head, summed over the batch: a scalar.

        Args:
            taught: the teacher's `expectations` on the same batch, with the tags in this head's order.

        Raises:
            ValueError: as for `expectations`.
        """
        raise ValueError(f"{type(self).__name__} cannot learn from a teacher")

    def predict(self, emissions: Tensor, word_mask: Tensor, with_confidence: bool = False) -> list[Prediction]:
        best, names = self.decode(emissions, word_mask).cpu().numpy(), self.tag_names
        tags = [[names[tag] for tag in row[:W]] for row, W in zip(best, word_mask.sum(1).tolist(), strict=True)]
        entities = [tags_to_entities(row) for row in tags]
        confidences: list[list[float]] = [[] for _ in tags]
        if with_confidence:
            confidences = self.entity_confidences(emissions, word_mask, entities)
        return [Prediction(*found) for found in zip(entities, confidences, tags, strict=True)]

    def entity_confidences(
        self, emissions: Tensor, word_mask: Tensor, entities: Sequence[Sequence[Entity]]
    ) -> list[list[float]]:
        """Compute exact confidences of the entities of each row.

        The confidence of an entity is the probability that its words have its well-formed tags and that the word after
        it does not continue it. If the model lacks tags of its scheme, all tag sequences that decode to the entity
        count.

        Args:
            emissions, word_mask: ``(B, W, C)`` and ``(B, W)``.
            entities: entities of each of the B rows.
        """
        places = [(row, entity) for row, found in enumerate(entities) for entity in found]
        flat = iter(self._confidences_at(places, emissions, word_mask))
        return [[next(flat) for _ in found] for found in entities]

    def _confidences_at(
        self, places: Sequence[tuple[int, Entity]], emissions: Tensor, word_mask: Tensor
    ) -> list[float]:
        """Exact confidences of entities, each with its row of the emissions."""
        confidences: list[float] = []
        lattice, emissions = self.lattice(), self.calibrated(emissions)
        for start in range(0, len(places), _SPANS_AT_ONCE):
            tensors = _span_tensors(places[start : start + _SPANS_AT_ONCE], self.tag_names, self.markup)
            on_device = (tensor.to(emissions.device) for tensor in tensors)
            confidences += lattice.span_confidence(emissions, word_mask, *on_device).tolist()
        return confidences

    def outside_confidences(
        self, emissions: Tensor, word_mask: Tensor, spans: Sequence[Sequence[tuple[int, int]]]
    ) -> list[list[float]]:
        """Compute the exact probability that no word of a span belongs to an entity, for the spans of each row.

        Args:
            emissions, word_mask: ``(B, W, C)`` and ``(B, W)``.
            spans: first and last words in each of the B rows.
        """
        places = torch.tensor([(row, *span) for row, found in enumerate(spans) for span in found]).view(-1, 3)
        outside = torch.zeros(emissions.size(-1), dtype=torch.bool)
        outside[self.tag_names.index(OUTSIDE)] = True
        lattice, emissions, confidences = self.lattice(), self.calibrated(emissions), list[float]()
        for part in places.split(_SPANS_AT_ONCE) if len(places) else ():
            L = int((part[:, 2] - part[:, 1]).max()) + 1
            inside = outside.expand(len(part), L, -1)
            on_device = (tensor.to(emissions.device) for tensor in (part, inside))
            confidences += lattice.span_confidence(emissions, word_mask, *on_device).tolist()
        flat = iter(confidences)
        return [[next(flat) for _ in found] for found in spans]

    def candidates(self, emissions: Tensor, word_mask: Tensor, threshold: float) -> list[list[tuple[Entity, float]]]:
        names = [split_tag(tag)[1] for tag in self.tag_names if tag != OUTSIDE]
        types = list(dict.fromkeys(names))
        tags = SpanTags(*(part.to(emissions.device) for part in _tags_of_types(types, self.tag_names, self.markup)))
        spans = self.lattice().probable_spans(self.calibrated(emissions), word_mask, tags, threshold)
        found: list[list[tuple[Entity, float]]] = [[] for _ in emissions]
        for row, kind, first, last, probability in zip(*(part.tolist() for part in spans), strict=True):
            found[row].append((Entity(types[kind], first, last), probability))
        return [sorted(row, key=lambda one: text_order(one[0])) for row in found]

    def uncertainty(self, emissions: Tensor, word_mask: Tensor) -> Uncertainty:
        lattice, emissions = self.lattice(), self.calibrated(emissions)
        best = lattice.best_paths(emissions, word_mask).scores - lattice.log_partition(emissions, word_mask)
        return Uncertainty(lattice.entropy(emissions, word_mask), best)

    def warm_up(self, emissions: Tensor, word_mask: Tensor) -> None:
        self.decode(emissions, word_mask)
        entities = [[Entity(name, 0, 0) for name in self.types[:1]], *[[]] * (len(emissions) - 1)]
        self.entity_confidences(emissions, word_mask, entities)

    def log_probabilities(self, emissions: Tensor) -> Tensor:
        """Log-softmax of each word's emissions; for a CRF, these are not the marginals."""
        return emissions.float().log_softmax(-1)


@lru_cache(maxsize=8)
def _tag_encoder(tags: tuple[str, ...], markup: str) -> TagEncoder:
    return TagEncoder(tags, MARKUPS[markup], unknown=IGNORED_LABEL)


def _span_tensors(
    places: Sequence[tuple[int, Entity]], tag_names: list[str], markup: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``spans (N, 3)``, ``inside (N, L, C)``, ``before (N, C)`` and ``after (N, C)`` for `CRF.span_confidence`."""
    types = list(dict.fromkeys(entity.type for _, entity in places))
    tags = _tags_of_types(types, tag_names, markup)
    spans = torch.tensor([(row, entity.first_word, entity.last_word) for row, entity in places])
    kinds = torch.tensor([types.index(entity.type) for _, entity in places])  # (N,)
    words = spans[:, 2] - spans[:, 1] + 1  # (N,)
    own, is_only = tags.at(kinds), (words == 1)[:, None]  # (N, 1)
    inside = own.middle[:, None].repeat(1, int(words.max()), 1)  # (N, L, C)
    inside[:, 0] = torch.where(is_only, own.only, own.first)
    inside[torch.arange(len(words)), words - 1] = torch.where(is_only, own.only, own.last)
    return spans, inside, own.before, torch.where(is_only, own.after_only, own.after_last)


def _tags_of_types(types: Sequence[str], tag_names: Sequence[str], markup: str) -> SpanTags:
    """The tags of the words in and around entities of K types: all ``(K, C)``."""
    all_types = {split_tag(tag)[1] for tag in tag_names if tag != OUTSIDE}
    schemes = (MARKUPS[markup], *SCHEMES.values())  # of one the tags are all, unless the model lacks some
    scheme = next((scheme for scheme in schemes if set(tag_set(all_types, scheme)) == set(tag_names)), None)
    rows = [_tags_of_type(name, tag_names, scheme) for name in types]
    return SpanTags(*(torch.tensor([[tag in row[part] for tag in tag_names] for row in rows]) for part in range(7)))


def _tags_of_type(name: str, tag_names: Sequence[str], scheme: TagScheme | None) -> tuple[set[str], ...]:
    """The parts of `SpanTags` of one type, as sets of tags."""
    if scheme is not None:
        (only,), (first, last), (_, middle, _) = (
            entities_to_tags([Entity(name, 0, length - 1)], length, scheme) for length in (1, 2, 3)
        )
        onlys, firsts, middles, lasts = {only}, {first}, {middle}, {last}
    else:  # all tags that conlleval accepts
        onlys = {tag for tag in tag_names if tag != OUTSIDE and split_tag(tag)[1] == name}
        firsts = {tag for tag in onlys if not all(begins_entity(tag, following) for following in onlys)}
        lasts = {tag for tag in onlys if not all(begins_entity(previous, tag) for previous in onlys)}
        middles = firsts & lasts
    opening = onlys | firsts
    before = {tag for tag in tag_names if tag == OUTSIDE or any(begins_entity(tag, one) for one in opening)}
    after_only, after_last = (
        {tag for tag in tag_names if tag == OUTSIDE or all(begins_entity(one, tag) for one in end)}
        for end in (onlys, lasts)
    )
    return onlys, firsts, middles, lasts, before, after_only, after_last
