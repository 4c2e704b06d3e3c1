"""Training on texts in which only some of the entities are annotated."""

import logging
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from callbacks.base import Callback, Forward, TrainState
from models.heads.flat import FlatTagger
from tools import distributed
from tools.run import Run

logger = logging.getLogger(__name__)
_WORDS_OF_MEAN = 5000  # of the running mean, whose batches are of texts of similar length, and so no fair sample
_DRIFT = 1.5  # times the upper bound, or below the lower one divided by it
_SETTLED = 0.5  # share of the training after which the ratio should be within its bounds


class MissingEntities(Callback):
    """Keeps the share of the words that the model expects in entities close to a known one.

    Where every unlabelled word may be anything, nothing contradicts a model that finds entities everywhere. The loss
    grows with the distance of the expected entity ratio from an interval around ``ratio`` (Effland and Collins 2021,
    Partially Supervised NER via the Expected Entity Ratio Loss, sec. 3.3). The ratio is a running mean over the batches
    of all ranks, not that of each batch: batches hold texts of similar length, whose ratios differ.

    Args:
        ratio: expected share of words in entities.
        margin: how far the model may be from it without a penalty, as a share of ``ratio``.
        weight: penalty for a ratio that is wrong by 1.
    """

    _REMEMBERED: ClassVar[tuple[str, ...]] = ("_mean",)

    def __init__(self, ratio: float, margin: float, weight: float) -> None:
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
        logger.info("Expected share of words in entities: %.1f to %.1f %%", 100 * self._lower, 100 * self._upper)

    def around_forward(self, state: TrainState, forward: Forward, batch: dict[str, Any]) -> Any:
        output, mask = forward(batch), batch["word_mask"]
        expected = cast(FlatTagger, state.model).expected_entity_words(output.logits, mask).sum()
        words = mask.sum()
        seen = torch.stack([expected.detach(), words.to(expected)])
        self._step = seen if self._step is None else self._step + seen
        mean = seen[0] / words.clamp(min=1) if self._mean is None else self._mean.to(expected)
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


def entity_ratio(run: Run, given: float) -> float:
    """The expected share of words in entities: the one that is given, or that of dev.

    Raises:
        ValueError: dev has no completely annotated text with entities to count in.
    """
    if given:
        return given
    assert run.expressible is not None
    words = inside = 0
    for example in run.corpus.examples("dev") if run.corpus.has("dev") else ():
        known = example.annotation
        if known.entities is not None and not known.open_types(run.types):
            words += known.annotated_words
            inside += sum(one.last_word + 1 - one.first_word for one in run.expressible(known.entities))
    if not inside:
        raise ValueError("--missing_entities: no entities in dev to estimate their share of words; give --entity_ratio")
    return inside / words
