"""Weights of entity types in the loss of heads that choose one tag per word."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig

from common.options import option
from common.tag_schemes import OUTSIDE, split_tag
from models.tagger import LabelSpace

logger = logging.getLogger(__name__)
BALANCED = "balanced"


@dataclass(frozen=True)
class FlatOptions:
    """Options of all heads that choose one tag per word."""

    class_weights: str = option(
        "",
        "weights in the loss of the words of entity types, and of other words under O, as in O=0.5,PER=2 (others: 1); "
        "balanced: inverse to their numbers of words in the training data",
    )


def configure_class_weights(config: PreTrainedConfig, labels: LabelSpace, asked: str) -> None:
    """Store the weights by entity type in ``config.class_weights``, if there are any.

    Raises:
        ValueError: a weight is not of the form ``TYPE=NUMBER``, or of an unknown type.
    """
    if asked == BALANCED:
        counts = {name: count for name, count in labels.count_words().items() if count}
        # As in scikit-learn. The mean weight of a word is 1, so the learning rates keep their meaning.
        config.class_weights = {name: sum(counts.values()) / (len(counts) * count) for name, count in counts.items()}
    elif asked:
        config.class_weights = _parsed(asked, [OUTSIDE, *labels.types])
    elif hasattr(config, "class_weights"):
        del config.class_weights
    if asked:
        shown = ", ".join(f"{name} {weight:.3g}" for name, weight in config.class_weights.items())
        logger.info("Weights in the loss: %s", shown)


def warn_of_other_weights(config: PreTrainedConfig, asked: str) -> None:
    """Warn if weights are asked for that differ from those that a model was trained with."""
    trained_with = getattr(config, "class_weights", {})
    if asked and not (trained_with if asked == BALANCED else trained_with == _parsed(asked)):
        message = "--class_weights %s: the model was trained with %s, which its loss is computed with"
        logger.warning(message, asked, trained_with or "equal weights")


def weights_of_tags(config: PreTrainedConfig, tags: Sequence[str]) -> list[float]:
    """Weight of each tag, that of its entity type; empty if all are equal."""
    weights: dict[str, float] = getattr(config, "class_weights", None) or {}
    types = [tag if tag == OUTSIDE else split_tag(tag)[1] for tag in tags if weights]
    return [float(weights.get(name, 1.0)) for name in types]


def _parsed(asked: str, known: Sequence[str] = ()) -> dict[str, float]:
    weights = {}
    for part in asked.split(","):
        name, equals, number = part.strip().rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (equals and 0 < weight < math.inf):
            raise ValueError(f"--class_weights {asked}: {part!r} is not of the form TYPE=POSITIVE_NUMBER, nor balanced")
        if known and name not in known:
            raise ValueError(f"--class_weights {asked}: {name!r} is none of {', '.join(known)}")
        weights[name] = weight
    return weights
