"""Training on texts in which only some of the entities are annotated."""

import logging
import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from callbacks.base import Callback, Forward, TrainState
from common.entities import Annotation
from models.heads.flat import FlatTagger
from processors.corpora import Corpora
from tools import distributed
from tools.run import Run

logger = logging.getLogger(__name__)
_WORDS_OF_MEAN = 5000  # of the running mean, whose batches are of texts of similar length, and so no fair sample
_LARGEST_SHARE = 0.95  # that is estimated: with 1, unlabelled words would be O
_DRIFT = 1.5  # times the upper bound, or below the lower one divided by it
_SETTLED = 0.5  # share of the training after which the ratio should be within its bounds


class MissingEntities(Callback):
    """Trains on texts in which annotators have overlooked entities.

    An unlabelled word is in an entity with the probability that the model gives, but then it had to be overlooked: the
    loss is that of all labels that agree with the annotation, and each word that they add to it counts as overlooked
    with probability ``1 - share`` (Elkan and Noto 2008 for single decisions; words count independently of each other,
    since a long entity would otherwise cost no more than a short one).

    Besides, the expected entity ratio of the model stays close to a known one: the loss grows with its distance from an
    interval around ``ratio`` (Effland and Collins 2021, Partially Supervised NER via the Expected Entity Ratio Loss,
    sec. 3.3). The ratio is a running mean over the batches of all ranks, not that of each batch: batches hold texts of
    similar length, whose ratios differ.

    Args:
        ratio: expected share of words in entities.
        share: share of these words that is annotated.
        margin: how far the model may be from ``ratio`` without a penalty, as a share of it.
        weight: penalty for a ratio that is wrong by 1.
    """

    _REMEMBERED: ClassVar[tuple[str, ...]] = ("_mean",)

    def __init__(self, ratio: float, share: float, margin: float, weight: float) -> None:
        self._log_missed = math.log1p(-share)
        self._lower, self._upper, self._weight = ratio * (1 - margin), ratio * (1 + margin), weight
        self._mean: Tensor | None = None  # (), of the steps so far
        self._step: Tensor | None = None  # (2,), expected words in entities and all words of this step

    def on_train_begin(self, state: TrainState) -> None:
        """Raise a ValueError if the head does not know how many words it expects in entities."""
        model = state.model
        if not isinstance(model, FlatTagger):
            raise ValueError(
                f"--missing_entities: {type(model).__name__} chooses no tags, and gives no expected share of words in "
                "entities; use a head that does, such as crf, softmax or crf_per_type"
            )
        model.log_missed = self._log_missed
        message = "Expected share of words in entities: %.1f to %.1f %%; share of these that is annotated: %.0f %%"
        logger.info(message, 100 * self._lower, 100 * self._upper, -100 * math.expm1(self._log_missed))

    def around_forward(self, state: TrainState, forward: Forward, batch: dict[str, Any]) -> Any:
        output, mask = forward(batch), batch["word_mask"]
        expected = cast(FlatTagger, state.model).expected_entity_words(output.logits, mask).sum()
        words = mask.sum()
        seen = torch.stack([expected.detach(), words.to(expected)])
        self._step = seen if self._step is None else self._step + seen
        if self._mean is None:
            return output
        mean = self._mean.to(expected)
        distance = (mean > self._upper) * (expected - self._upper * words)
        distance = distance + (mean < self._lower) * (self._lower * words - expected)
        loss = output.loss.sum() + self._weight * distance / batch["num_items_in_batch"]
        return type(output)(loss=loss, logits=output.logits)

    def on_step(self, state: TrainState) -> None:
        assert self._step is not None
        expected, words = distributed.sum_over_ranks(self._step)
        self._step = None
        now = expected / words.clamp(min=1)
        share = (words / _WORDS_OF_MEAN).clamp(max=1)
        self._mean = now if self._mean is None else self._mean.to(now) + share * (now - self._mean.to(now))

    def on_evaluate(self, state: TrainState) -> None:
        self._report(state)

    def on_train_end(self, state: TrainState) -> None:
        if not state.evaluated_step:
            self._report(state)

    def _report(self, state: TrainState) -> None:
        """Log the share of words in entities, as a warning if it is far from what is known."""
        if self._mean is None or not state.is_main:
            return
        ratio = float(self._mean)
        message = "The model expects %.1f %% of the words of training texts in entities, %s"
        bounds = f"within {100 * self._lower:.1f} to {100 * self._upper:.1f} %"
        if state.step < _SETTLED * state.total_steps or self._lower / _DRIFT <= ratio <= self._upper * _DRIFT:
            logger.info(message, 100 * ratio, f"wanted: {bounds}")
        elif ratio > self._upper:
            reason = f"not {bounds}: it drifts towards entities everywhere; raise --entity_ratio_weight"
            logger.warning(message, 100 * ratio, reason)
        else:
            reason = f"not {bounds}: it finds few entities; raise --entity_ratio_weight, or train longer"
            logger.warning(message, 100 * ratio, reason)


def entity_ratio(run: Run) -> float:
    """The expected share of words in entities: the one that is given, or that of dev.

    Raises:
        ValueError: dev has no completely annotated text with entities to count in.
    """
    if given := run.settings.optimisation.entity_ratio:
        return given
    found = _share_in_entities(run, "dev", lambda one: not one.open_types(run.types))
    if not found:
        raise ValueError("--missing_entities: no entities in dev to estimate their share of words; give --entity_ratio")
    return found


def annotated_share(run: Run, ratio: float) -> float:
    """The share of the words of entities that is annotated where some are missing: the one that is given, or estimated.

    Args:
        ratio: see `entity_ratio`.
    """
    if given := run.settings.optimisation.annotated_share:
        return given
    tells = isinstance(run.corpus, Corpora)

    def lacks_some(known: Annotation) -> bool:
        return bool(known.open_types(run.types)) or (known.complete is None and not tells)

    return min(_share_in_entities(run, "train", lacks_some) / ratio, _LARGEST_SHARE)


def _share_in_entities(run: Run, split: str, counts: Callable[[Annotation], bool]) -> float:
    """Share of the annotated words of some texts that is in entities; 0 without any."""
    assert run.expressible is not None
    words = inside = 0
    for example in run.corpus.examples(split) if run.corpus.has(split) else ():
        known = example.annotation
        if known.entities is not None and counts(known):
            words += known.annotated_words
            inside += sum(one.last_word + 1 - one.first_word for one in run.expressible(known.entities))
    return inside / words if words else 0.0
