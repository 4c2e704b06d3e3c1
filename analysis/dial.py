"""The dial between precision and recall: what a threshold on the probability of entities gives, from labelled texts.

Candidates are all entities whose probability is at least `LEAST`. Some contradict each other, such as two types of the
same words. Either all are given, or the most probable one of those; in both cases a higher threshold only removes
entities, so one pass gives the scores of all thresholds.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from common.entities import Entity
from processors.formats.writers import FORMAT_VERSION

LEAST = 0.001  # probability of a candidate, and so the lowest threshold
ASKED = (("recall", 0.9), ("recall", 0.95), ("recall", 0.99), ("precision", 0.9), ("precision", 0.95))
_EVEN = 0.5  # asking for recall only lowers thresholds below it, asking for precision only raises them
_ALL_TYPES = ""
_FEWEST = 20  # gold entities of a type that can have a threshold of its own
_POINTS = 300  # of a curve


class Candidates(NamedTuple):
    """The candidates of a labelled text.

    Args:
        document: name of the document that the text is a sentence of, or empty.
        gold: gold entities.
        found: candidates and their probabilities.
    """

    document: str
    gold: Sequence[Entity]
    found: Sequence[tuple[Entity, float]]


@dataclass(frozen=True)
class Curve:
    """What thresholds give for one type, or for all.

    Args:
        thresholds: ``(N,)`` from high to low.
        right, predicted: ``(N,)`` candidates of at least this probability: the correct ones, and all.
        gold: number of gold entities.
    """

    thresholds: NDArray[np.float64]
    right: NDArray[np.int64]
    predicted: NDArray[np.int64]
    gold: int

    @classmethod
    def of(cls, probabilities: Sequence[float], right: Sequence[bool], gold: int) -> Self:
        """From the probability of each candidate and whether it is correct, thinned to some hundred points."""
        values, order = np.asarray(probabilities, np.float64), np.argsort(probabilities)[::-1]
        values = values[order]
        hits = np.cumsum(np.asarray(right, bool)[order])
        last = np.flatnonzero(np.append(values[:-1] != values[1:], True)) if len(values) else np.empty(0, np.int64)
        last = last[np.unique(np.linspace(0, len(last) - 1, min(len(last), _POINTS)).round().astype(int))]
        return cls(values[last], hits[last], last + 1, gold)

    @property
    def recall(self) -> NDArray[np.float64]:
        return self.right / max(1, self.gold)

    @property
    def precision(self) -> NDArray[np.float64]:
        return self.right / np.maximum(1, self.predicted)

    def counts(self, threshold: float) -> NDArray[np.int64]:
        """Correct, predicted and gold entities at a threshold: ``(3,)``."""
        place = np.searchsorted(-self.thresholds, -threshold, side="right") - 1
        right, predicted = (self.right[place], self.predicted[place]) if place >= 0 else (0, 0)
        return np.array([right, predicted, self.gold])

    def for_recall(self, recall: float) -> float:
        """The highest threshold up to 0.5 with this recall, or with the highest recall if none has it."""
        reached = self.thresholds[self.recall >= min(recall, self.recall.max(initial=0))]
        return min(_EVEN, float(reached.max(initial=0))) or LEAST

    def for_precision(self, precision: float) -> float:
        """The lowest threshold from 0.5 on with this precision; that of the highest precision if none has it."""
        high = self.thresholds >= _EVEN
        if not high.any():
            return 1.0
        reached = np.flatnonzero(high & (self.precision >= precision))
        best = np.where(high, self.precision, 0).argmax()
        return float(self.thresholds[reached[-1] if len(reached) else best])


class OperatingPoint(NamedTuple):
    """Thresholds by type, and the precision and recall that they have on the texts that they were chosen on."""

    thresholds: dict[str, float]
    precision: float
    recall: float


@dataclass(frozen=True)
class DialRow:
    """Precision and recall of thresholds that were chosen on dev to have what is asked.

    Args:
        asked: such as ``recall 0.95``, for each type; ``overlapping`` if all candidates are given.
        dev_precision, dev_recall: there, over all types.
        precision, recall: on the scored split.
    """

    asked: str
    dev_precision: float
    dev_recall: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Dial:
    """The curves of all types on one split, and the probabilities that the gold entities of each document have.

    Args:
        curves: by type; under ``""`` that of all types together, which also serves types with few gold entities.
        documents: for each document with entities, their probabilities as candidates, 0 for those that are none.
    """

    curves: Mapping[str, Curve]
    documents: Sequence[Sequence[float]]

    @classmethod
    def of(cls, texts: Iterable[Candidates], types: Sequence[str]) -> Self:
        probabilities, right = defaultdict[str, list[float]](list), defaultdict[str, list[bool]](list)
        gold, documents = dict.fromkeys([_ALL_TYPES, *types], 0), defaultdict[str, list[float]](list)
        for number, text in enumerate(texts):
            found = dict(text.found)
            for entity in text.gold:
                for name in (_ALL_TYPES, entity.type):
                    gold[name] = gold.get(name, 0) + 1
                documents[text.document or f"text {number}"].append(found.get(entity, 0.0))
            wanted = set(text.gold)
            for entity, probability in text.found:
                for name in (_ALL_TYPES, entity.type):
                    probabilities[name].append(probability)
                    right[name].append(entity in wanted)
        curves = {name: Curve.of(probabilities[name], right[name], count) for name, count in gold.items()}
        return cls(curves, list(documents.values()))

    @property
    def types(self) -> list[str]:
        return [name for name in self.curves if name != _ALL_TYPES]

    @property
    def overall(self) -> Curve:
        return self.curves[_ALL_TYPES]

    def operating_point(self, measure: str, value: float) -> OperatingPoint:
        """Choose thresholds.

        Args:
            measure: ``recall`` or ``precision``, which each type shall have at least, or ``threshold``.
            value: how much; where a type cannot have it, it gets the nearest.

        Raises:
            ValueError: the measure is unknown or the value out of range.
        """
        if not 0 < value <= 1:
            raise ValueError(f"{measure} {value} is not in (0, 1]")
        choose = {
            "recall": lambda curve: curve.for_recall(value),
            "precision": lambda curve: curve.for_precision(value),
            "threshold": lambda curve: value,
        }
        if measure not in choose:
            raise ValueError(f"{measure!r} is none of {', '.join(choose)}")
        thresholds = {}
        for name in self.types:
            curve = self.curves[name]
            thresholds[name] = choose[measure](curve if curve.gold >= _FEWEST else self.overall)
        return self.at(thresholds)

    def at(self, thresholds: Mapping[str, float]) -> OperatingPoint:
        """What these thresholds give here; types without one count as never predicted."""
        counts = [self.curves[name].counts(thresholds.get(name, np.inf)) for name in self.types]
        right, predicted, gold = np.sum([np.zeros(3, np.int64), *counts], axis=0)
        return OperatingPoint(dict(thresholds), right / max(1, predicted), right / max(1, gold))

    def threshold_for_missed(self, share: float, certainty: float = 0.95) -> float:
        """The threshold, the same for all types, at which no more than ``share`` of the entities are missed.

        Missed is the share of a document's entities that have a lower probability, averaged over documents that have
        entities. With probability ``certainty`` over the choice of these documents, the average over all documents of
        their kind is at most ``share``. This is risk control (Bates et al. 2021, Distribution-free risk-controlling
        prediction sets) by the betting bound of Waudby-Smith and Ramdas (sec. 3.1.3 there), with thresholds tested from
        the lowest on.

        Raises:
            ValueError: no threshold can be guaranteed; more documents are needed, or a larger share.
        """
        documents = [np.sort(one) for one in self.documents]
        found = np.concatenate([[LEAST], *documents])
        thresholds = np.quantile(found[found >= LEAST], np.linspace(0, 1, _POINTS))
        missed = [np.searchsorted(one, thresholds) / len(one) for one in documents]  # of each document (T,)
        order = np.random.default_rng(0).permutation(len(missed))  # the bound reads them one by one
        losses = np.array(missed).reshape(-1, _POINTS)[order]  # (D, T)
        doubtful = _p_values(losses, share) > 1 - certainty
        if doubtful[0]:
            raise ValueError(
                f"at most {share:.1%} missed cannot be guaranteed with certainty {certainty:.0%}: even the threshold "
                f"{LEAST} misses {losses[:, 0].mean() if len(losses) else 1:.1%} in {len(losses)} documents; use more "
                "documents, or allow more"
            )
        return float(thresholds[doubtful.argmax() - 1 if doubtful.any() else -1])

    def as_dict(self) -> dict[str, Any]:
        curves = {
            name: {
                "gold": curve.gold,
                "thresholds": curve.thresholds.tolist(),
                "right": curve.right.tolist(),
                "predicted": curve.predicted.tolist(),
            }
            for name, curve in self.curves.items()
        }
        return {"curves": curves, "documents": self.documents}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        curves = {
            name: Curve(
                np.array(one["thresholds"], np.float64),
                np.array(one["right"], np.int64),
                np.array(one["predicted"], np.int64),
                one["gold"],
            )
            for name, one in record["curves"].items()
        }
        return cls(curves, record["documents"])


@dataclass(frozen=True)
class Dials:
    """The dial without candidates that contradict a more probable one, and that of all candidates."""

    compatible: Dial
    overlapping: Dial

    def rows(self, scored: "Dials") -> list[DialRow]:
        """What thresholds that are chosen here give on another split."""
        rows = []
        for note, own, other in (
            ("", self.compatible, scored.compatible),
            (", overlapping", self.overlapping, scored.overlapping),
        ):
            for measure, value in ASKED:
                point = own.operating_point(measure, value)
                found = other.at(point.thresholds)
                asked = f"{measure} {value:g}{note}"
                rows.append(DialRow(asked, point.precision, point.recall, found.precision, found.recall))
        return rows

    def write(self, path: Path) -> None:
        dials = {"compatible": self.compatible.as_dict(), "overlapping": self.overlapping.as_dict()}
        path.write_text(json.dumps({"format_version": FORMAT_VERSION, **dials}) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file of `write`.

        Raises:
            ValueError: the file is of a later version.
        """
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if record["format_version"] > FORMAT_VERSION:
            version = f"format_version {record['format_version']}"
            raise ValueError(f"{path}: {version}: update the project, or score the run again")
        return cls(*(Dial.from_dict(record[name]) for name in ("compatible", "overlapping")))


def _p_values(losses: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """For each column, how probable losses ``(D, T)`` in [0, 1] are at most if their expectation exceeds ``bound``.

    Bets on the next loss being lower multiply a capital, which would hardly grow if the expectation were higher.
    """
    D, T = losses.shape
    count = np.arange(1, D + 1)[:, None]
    means = (0.5 + losses.cumsum(0)) / (count + 1)
    variances = (0.25 + ((losses - means) ** 2).cumsum(0)) / (count + 1)
    known = np.concatenate([np.full((1, T), 0.25), variances])[:D]  # before each loss
    bets = np.minimum(1, np.sqrt(2 * np.log(20) / (max(1, D) * known)))
    capital = np.cumsum(np.log1p(-bets * (losses - bound)), 0)
    return np.exp(-np.maximum(0, capital.max(0, initial=0)))
