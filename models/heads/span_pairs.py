"""Base class of heads that score pairs of words: the first and the last word of an entity, for each type."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig

from common.entities import Annotation, Entity, in_text_order, text_order
from common.options import option
from common.tag_schemes import IGNORED_LABEL
from models.tagger import LabelSpace, Prediction, Tagger

_SCORES_AT_ONCE = 2**22  # bounds memory: a loss of more scores is computed, and computed again backwards, in blocks
_NO_ENTITY = -1
_NO_TYPE = -1


@dataclass(frozen=True)
class SpanPairOptions:
    span_size: int = option(64, "size of the vector of a first word, and of that of a last word", at_least=2)
    longest_span: int = option(64, "words of the longest entity; longer ones are not learnt, and counted", at_least=1)
    span_learning_rate: float = option(1e-3, "peak learning rate of the layers that score spans", at_least=0)


class Block(NamedTuple):
    """Spans whose first words are neighbours.

    Args:
        first: first word of the first of them.
        scores: ``(B, w, v, S)``; ``[:, i, j]`` is the span of the words ``first + i`` to ``first + j``.
        counts: ``(B, w, v)`` true for spans of known words in the right order and not too long.
        unknown: ``(B, w, 1, K)`` true for types of which a span may be an entity that is not annotated; ``None``: none.
    """

    first: int
    scores: Tensor
    counts: Tensor
    unknown: Tensor | None = None


class SpanPairTagger(Tagger):
    """A tagger that scores every span of up to ``config.longest_span`` words for each of K types.

    Emissions are vectors of single words, so windows can be joined; spans are scored in loss and prediction only, in
    blocks of bounded size. ``classifier`` projects states to the vectors of first and last words.

    Subclasses implement `pair_scores`, `block_loss`, `total_loss`, `found` and `probabilities`.
    """

    Options: ClassVar[type] = SpanPairOptions
    script: ClassVar[str] = "run_ner_span.py"
    scores_a_type: ClassVar[int] = 0  # scores of a span besides one per type

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        super().configure(config, labels, options)
        config.span_size, config.longest_span = options.span_size, options.longest_span

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(self.width, 2 * config.span_size)

    @abstractmethod
    def pair_scores(self, firsts: Tensor, lasts: Tensor) -> Tensor:
        """Score spans: emissions of their first and last words ``(B, w, C), (B, v, C) -> (B, w, v, S)``.

        The words lie in a row, and the first one is the same.
        """

    @abstractmethod
    def block_loss(self, block: Block, gold: Tensor) -> Tensor:
        """Compute the share ``(B, ...)`` of a block in the loss, where ``gold (B, w, v, K)`` is true for entities."""

    @abstractmethod
    def total_loss(self, shares: Tensor) -> Tensor:
        """Combine the shares of N blocks: ``(N, B, ...) -> (B,)``."""

    @abstractmethod
    def found(self, block: Block) -> tuple[Tensor, Tensor]:
        """Choose the spans of a block that are entities.

        Returns:
            Mask ``(B, w, v, K)`` of these entities; scores ``(B, w, v, K)``, which rank the entities of a text.
        """

    @abstractmethod
    def probabilities(self, block: Block) -> Tensor:
        """Probability of each span and type: ``(B, w, v, K)``."""

    def expressible(self, entities: Sequence[Entity]) -> list[Entity]:
        short = [one for one in in_text_order(entities) if one.words <= self.config.longest_span]
        return in_text_order(self.compatible(sorted(short, key=lambda one: -one.words)))

    def encode(self, annotations: Sequence[Annotation]) -> Tensor:
        """Encode entities at their first words: ``(B, W, M)``, with the codes of up to M entities that start there.

        A code is ``(words - 1) * K + type``; -1 is no further entity, -100 an unknown word.

        Where some types are not complete: ``(B, W, 2, M)``, with the codes, and with the numbers of these types.
        """
        types = {name: index for index, name in enumerate(self.types)}
        known = [one.of_types(types) for one in annotations]
        starting: list[dict[int, list[int]]] = [{} for _ in known]
        for codes, one in zip(starting, known, strict=True):
            for entity in self.expressible(one.entities or ()):
                code = (entity.words - 1) * len(types) + types[entity.type]
                codes.setdefault(entity.first_word, []).append(code)
        M = max((len(one) for codes in starting for one in codes.values()), default=1)
        W = max(1, *(one.words for one in known))
        targets = np.full((len(known), W, M), IGNORED_LABEL)
        for row, codes, annotation in zip(targets, starting, known, strict=True):
            if annotation.entities is not None:
                row[: annotation.words] = _NO_ENTITY
            for word, own in codes.items():
                row[word, : len(own)] = own
            for first, last in annotation.unannotated:
                row[first : last + 1] = IGNORED_LABEL
        if not any(one.complete is not None for one in known):
            return torch.from_numpy(targets)
        M = max(M, len(types))
        both = np.full((len(known), W, 2, M), _NO_TYPE)
        both[:, :, 0, : targets.shape[2]] = targets
        for rows, annotation in zip(both, known, strict=True):
            for place, name in enumerate(annotation.open_types(types)):
                rows[:, 1, place] = types[name]
        both[(targets == IGNORED_LABEL).all(-1)] = IGNORED_LABEL
        return torch.from_numpy(both)

    def losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        # Compiled, each number of blocks would be another graph.
        return cast(Tensor, torch.compiler.disable(self._losses)(emissions, targets, word_mask))

    def _losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        unknown: Tensor | None = None
        if targets.dim() == 4:
            targets, unknown = targets.unbind(2)  # (B, W, M) both
        known = word_mask & (targets != IGNORED_LABEL).all(-1)  # (B, W)
        targets = targets.masked_fill(~known.unsqueeze(-1), _NO_ENTITY)
        starts = self._block_starts(emissions)
        if len(starts) == 1 or not torch.is_grad_enabled():
            shares = [self._share(emissions, targets, unknown, known, *ends) for ends in starts]
        else:
            shares = [
                checkpoint(self._share, emissions, targets, unknown, known, *ends, use_reentrant=False)
                for ends in starts
            ]
        return self.total_loss(torch.stack(shares))  # (B,)

    def _share(
        self, emissions: Tensor, targets: Tensor, unknown: Tensor | None, known: Tensor, first: int, end: int
    ) -> Tensor:
        block = self._block(emissions, known, first, end)
        B, w, v = block.counts.shape
        K = len(self.types)
        # A code counts from the first word of its entity, a place from that of the block.
        shift = K * torch.arange(w, device=targets.device)[:, None]  # (w, 1)
        codes = targets[:, first:end]  # (B, w, M)
        places = torch.where(codes >= 0, codes + shift, v * K)
        gold = torch.zeros(B, w, v * K + 1, dtype=torch.bool, device=targets.device).scatter_(2, places, True)
        gold = gold[..., :-1].view(B, w, v, K) & block.counts.unsqueeze(-1)
        if unknown is not None:
            types = unknown[:, first:end].clamp(min=_NO_TYPE)  # (B, w, M)
            is_open = (types.unsqueeze(-1) == torch.arange(K, device=types.device)).any(2)  # (B, w, K)
            block = block._replace(unknown=is_open.unsqueeze(2))
        return self.block_loss(block, gold)

    def _block_starts(self, emissions: Tensor) -> list[tuple[int, int]]:
        """First words of the blocks: for each block the first, and the one after the last."""
        B, W, _ = emissions.shape
        S = len(self.types) + self.scores_a_type
        longest = self.config.longest_span
        w = W if B * W * W * S <= _SCORES_AT_ONCE else _SCORES_AT_ONCE // (B * S * min(W, 2 * longest))
        w = max(1, min(w, longest) if 2 * longest < W else w)
        return [(first, min(first + w, W)) for first in range(0, W, w)]

    def _block(self, emissions: Tensor, known: Tensor, first: int, end: int) -> Block:
        """Score the spans whose first words are ``first`` to ``end - 1``."""
        after = min(emissions.size(1), end - 1 + self.config.longest_span)  # word after the last of their last words
        with torch.autocast(emissions.device.type, enabled=False):
            scores = self.pair_scores(emissions[:, first:end].float(), emissions[:, first:after].float())
        places = torch.arange(after - first, device=known.device)
        words_before = places - places[: end - first, None]  # (w, v) of the last word, from the first one on
        fits = (words_before >= 0) & (words_before < self.config.longest_span)
        unknown = F.pad((~known[:, first:after]).cumsum(1), (1, 0))  # (B, v + 1) up to each word
        is_known = unknown[:, None, 1:] == unknown[:, : end - first, None]  # (B, w, v)
        return Block(first, scores, fits & is_known)

    @torch.no_grad()
    def predict(self, emissions: Tensor, word_mask: Tensor, with_confidence: bool = False) -> list[Prediction]:
        entities: list[list[tuple[float, float, Entity]]] = [[] for _ in emissions]
        for block in self._blocks(emissions, word_mask):
            chosen, scores = self.found(block)
            for row, entity, *values in self._entities(block, chosen, scores, self.probabilities(block)):
                entities[row].append((*values, entity))
        predictions = []
        for found in entities:
            found.sort(key=lambda one: (-one[0], one[2]))
            confidences = {entity: confidence for _, confidence, entity in found}
            kept = in_text_order(self.compatible(list(confidences)))
            predictions.append(Prediction(kept, [confidences[one] for one in kept] if with_confidence else []))
        return predictions

    @torch.no_grad()
    def candidates(self, emissions: Tensor, word_mask: Tensor, threshold: float) -> list[list[tuple[Entity, float]]]:
        found: list[list[tuple[Entity, float]]] = [[] for _ in emissions]
        for block in self._blocks(emissions, word_mask):
            probabilities = self.probabilities(block)
            chosen = (probabilities >= threshold) & block.counts.unsqueeze(-1)
            for row, entity, probability in self._entities(block, chosen, probabilities):
                found[row].append((entity, probability))
        return [sorted(row, key=lambda one: text_order(one[0])) for row in found]

    def _blocks(self, emissions: Tensor, word_mask: Tensor) -> Iterator[Block]:
        return (self._block(emissions, word_mask, *ends) for ends in self._block_starts(emissions))

    def _entities(self, block: Block, chosen: Tensor, *values: Tensor) -> Iterator[tuple[Any, ...]]:
        """Row, entity and values of each chosen span and type of a block; all tensors ``(B, w, v, K)``."""
        names = self.types
        numbers = [value[chosen].tolist() for value in values]
        for (row, first, last, kind), *own in zip(chosen.nonzero().tolist(), *numbers, strict=True):
            yield row, Entity(names[kind], block.first + first, block.first + last), *own
