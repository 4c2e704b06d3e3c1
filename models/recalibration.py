"""Confidences that take into account what the training data know of an entity.

A model is far too confident about names that it has never seen, and hardly about others. One correction for all
confidences holds only for texts with as many new names as those that it was fitted on. Here new names have a correction
of their own.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from common.entities import Entity

_DIGEST = np.dtype("<u4")
_CERTAIN = 1e-6  # probabilities are kept so far from 0 and 1


class Familiarity(IntEnum):
    """How the words of a predicted entity occur in the training data."""

    NEW = 0  # not as an entity
    OTHER_TYPE = 1  # as an entity, but never of this type
    KNOWN = 2  # as an entity of this type


class TrainingEntities:
    """The entities of the training data, as digests of 32 bits: a model can be passed on without their names.

    With 8,000 entities, about one new name in 100,000 is mistaken for a known one; with a million, one in 1,000.

    Args:
        digests: ``(N,)`` in ascending order.
    """

    def __init__(self, digests: NDArray[np.uint32]) -> None:
        self._digests = digests

    @classmethod
    def collect(cls, texts: Iterable[tuple[Sequence[str], Iterable[Entity]]]) -> Self:
        """From the words and the entities of each text."""
        found = {key for words, entities in texts for one in entities for key in _keys(words, one)}
        return cls(np.unique(np.fromiter(map(_digest, found), _DIGEST)))

    def __len__(self) -> int:
        return len(self._digests)

    def familiarity(self, words: Sequence[str], entity: Entity) -> Familiarity:
        """How the training data know an entity of a text with these words."""
        has_name, has_type = (self._has(_digest(key)) for key in _keys(words, entity))
        return Familiarity.KNOWN if has_type else Familiarity.OTHER_TYPE if has_name else Familiarity.NEW

    def _has(self, digest: int) -> bool:
        place = int(np.searchsorted(self._digests, digest))
        return place < len(self) and int(self._digests[place]) == digest

    def encoded(self) -> str:
        return b64encode(self._digests.astype(_DIGEST).tobytes()).decode("ascii")

    @classmethod
    @lru_cache(maxsize=4)
    def decoded(cls, text: str) -> Self:
        return cls(np.frombuffer(b64decode(text), _DIGEST))


@dataclass(frozen=True)
class Recalibration:
    """Turns the probability p of an entity into ``sigmoid(slope * logit(p) + intercept)`` (Platt 1999, sec. 2.1).

    Args:
        entities: those of the training data.
        curves: slope and intercept for each `Familiarity`.
    """

    entities: TrainingEntities
    curves: Sequence[tuple[float, float]]

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Self | None:
        """That of a model; ``None`` if `tools.calibrate` has not written one."""
        saved: dict[str, Any] | None = getattr(config, "recalibration", None)
        if saved is None:
            return None
        return cls(TrainingEntities.decoded(saved["training_entities"]), [(a, b) for a, b in saved["curves"]])

    def as_config(self) -> dict[str, Any]:
        """What `of` reads."""
        return {"curves": [list(curve) for curve in self.curves], "training_entities": self.entities.encoded()}

    def __call__(self, words: Sequence[str], entities: Sequence[Entity], probabilities: Sequence[float]) -> list[float]:
        """The confidences of entities of a text with these words."""
        curves = np.array([self.curves[self.entities.familiarity(words, one)] for one in entities]).reshape(-1, 2)
        slopes, intercepts = curves.T
        logits = slopes * logit(np.asarray(probabilities, np.float64)) + intercepts
        return (1 / (1 + np.exp(-logits))).tolist()

    def least_before(self, least: float) -> float:
        """The lowest probability that any curve turns into ``least``, but at least one in a million."""
        slopes, intercepts = np.array(self.curves).T
        lowest = (1 / (1 + np.exp((intercepts - logit(np.array([least]))) / slopes))).min()
        return max(_CERTAIN, float(lowest))


def forget_calibration(config: PreTrainedConfig) -> None:
    """Remove what `tools.calibrate` has fitted, before other weights are trained from a model."""
    for name in ("confidence_temperatures", "recalibration"):
        if hasattr(config, name):
            delattr(config, name)


def logit(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds; finite for 0 and 1 too."""
    kept = probabilities.clip(_CERTAIN, 1 - _CERTAIN)
    return np.log(kept / (1 - kept))


def _keys(words: Sequence[str], entity: Entity) -> tuple[str, str]:
    """The name, and the name with its type."""
    name = " ".join(words[entity.first_word : entity.last_word + 1])
    return name, f"{name}\0{entity.type}"


def _digest(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little")
