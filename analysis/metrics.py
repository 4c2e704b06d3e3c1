"""Entity scores as in conlleval, strict scores by tag scheme, and tag accuracy."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from seqeval.scheme import IOB1, IOB2, IOBES, Prefix, Tag, Token

from common.entities import Entity
from common.tag_schemes import OUTSIDE, canonical_tag


class BIOS(Token):  # type: ignore[misc]
    """The BIOS scheme, which seqeval lacks: S- for single words, B- I- ... for longer entities."""

    allowed_prefix = Prefix.B | Prefix.I | Prefix.O | Prefix.S
    start_patterns = {(Prefix.ANY, Prefix.B, Tag.ANY), (Prefix.ANY, Prefix.S, Tag.ANY)}  # noqa: RUF012
    inside_patterns = {(Prefix.B, Prefix.I, Tag.SAME), (Prefix.I, Prefix.I, Tag.SAME)}  # noqa: RUF012
    end_patterns = {  # noqa: RUF012
        (Prefix.S, Prefix.ANY, Tag.ANY),
        (Prefix.I, Prefix.O, Tag.ANY),
        (Prefix.I, Prefix.B, Tag.ANY),
        (Prefix.I, Prefix.S, Tag.ANY),
        (Prefix.I, Prefix.I, Tag.DIFF),
    }


_STRICT_SCHEMES = {"bio": IOB2, "iob1": IOB1, "bios": BIOS, "bioes": IOBES, "bmes": IOBES, "bilou": IOBES}
_LONG_DOCUMENT = 500


@dataclass
class Score:
    """Precision, recall and F1 of entities, and the number of gold entities."""

    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0
    support: int = 0


@dataclass
class EntityScores:
    """Scores of a split.

    Args:
        micro: score over all entities.
        types: scores by type.
        strict: score over all entities that are well-formed in the tag scheme; ``None`` without tags.
        accuracy: share of words with the correct tag; ``None`` without tags.
    """

    micro: Score = field(default_factory=Score)
    types: dict[str, Score] = field(default_factory=dict)
    strict: Score | None = None
    accuracy: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Scores over all entities as flat entries, and those by type under ``types``."""
        found: dict[str, Any] = asdict(self.micro)
        if self.accuracy is not None:
            found["accuracy"] = self.accuracy
        if self.strict is not None:
            strict = self.strict
            found |= {"strict_precision": strict.precision, "strict_recall": strict.recall, "strict_f1": strict.f1}
        return found | {"types": {name: asdict(score) for name, score in self.types.items()}}


def score_entities(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> EntityScores:
    """Score the entities of each text; an entity is correct if its words and its type match."""
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])  # right, predicted, gold
    for wanted, found in zip(map(set, gold), map(set, predicted), strict=True):
        for column, entities in enumerate((wanted & found, found, wanted)):
            for entity in entities:
                counts[entity.type][column] += 1
    whole = [sum(column) for column in zip(*counts.values(), strict=True)] or [0, 0, 0]
    return EntityScores(_score_of(*whole), {name: _score_of(*counts[name]) for name in sorted(counts)})


def _score_of(right: int, predicted: int, gold: int) -> Score:
    precision, recall = right / max(1, predicted), right / max(1, gold)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0  # bit-identical to seqeval
    return Score(precision, recall, f1, gold)


def score_tags(tags: Sequence[tuple[Sequence[str], Sequence[str]]], markup: str) -> tuple[Score, float]:
    """Compute strict scores with seqeval, and the share of words with the correct tag.

    Args:
        tags: gold and predicted tags of each sentence, in the scheme ``markup``.
    """
    from seqeval.metrics import accuracy_score, classification_report  # slow import

    pieces = [piece for one, other in tags for piece in _pieces(one, other)]
    gold, predicted = ([list(map(canonical_tag, piece[side])) for piece in pieces] for side in (0, 1))
    accuracy = float(accuracy_score(gold, predicted)) if any(gold) else 0.0
    if all(tag == OUTSIDE for tags in (*gold, *predicted) for tag in tags):
        return Score(), accuracy
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # mean of an empty list, see below
            report: dict[str, Any] = classification_report(
                gold, predicted, output_dict=True, mode="strict", scheme=_STRICT_SCHEMES[markup], zero_division=0
            )
    except ValueError:  # no entity is well-formed: seqeval takes the maximum of an empty list
        return Score(), accuracy
    micro = report["micro avg"]
    precision, recall, f1 = (float(micro[name]) for name in ("precision", "recall", "f1-score"))
    return Score(precision, recall, f1, int(micro["support"])), accuracy


def _pieces(gold: Sequence[str], predicted: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Split long documents where both sides have ``O``: seqeval takes quadratic time."""
    start = 0
    for position, (one, other) in enumerate(zip(gold, predicted, strict=True)):
        if position - start >= _LONG_DOCUMENT and one == other == OUTSIDE:
            yield gold[start:position], predicted[start:position]
            start = position
    yield gold[start:], predicted[start:]
