"""Scores of entities as sets, which are those of conlleval, and of tags: strictly by scheme, and word by word."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB1, IOB2, IOBES, Prefix, Tag, Token

from common.entities import Entity
from common.tag_schemes import OUTSIDE, canonical_tag


class BIOS(Token):  # type: ignore[misc]
    """Single words are S-, longer entities B- I- ...; seqeval has no such scheme of its own."""

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
    """Precision, recall and F1 of entities, and how many there are in the gold data."""

    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0
    support: int = 0


@dataclass
class EntityScores:
    """Scores of a split.

    Args:
        micro: over all entities.
        types: by type.
        strict: over all entities, counting only those that are well-formed in the scheme; where there are tags.
        accuracy: share of the words that have the right tag; likewise.
    """

    micro: Score = field(default_factory=Score)
    types: dict[str, Score] = field(default_factory=dict)
    strict: Score | None = None
    accuracy: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Flat headline numbers, and the types under ``types``."""
        found: dict[str, Any] = asdict(self.micro)
        if self.accuracy is not None:
            found["accuracy"] = self.accuracy
        if self.strict is not None:
            strict = self.strict
            found |= {"strict_precision": strict.precision, "strict_recall": strict.recall, "strict_f1": strict.f1}
        return found | {"types": {name: asdict(score) for name, score in self.types.items()}}


def score_entities(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> EntityScores:
    """Compares the entities of each text; one counts if its words and its type agree."""
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])  # right, predicted, gold
    for wanted, found in zip(map(set, gold), map(set, predicted), strict=True):
        for column, entities in enumerate((wanted & found, found, wanted)):
            for entity in entities:
                counts[entity.type][column] += 1
    whole = [sum(column) for column in zip(*counts.values(), strict=True)] or [0, 0, 0]
    return EntityScores(_score_of(*whole), {name: _score_of(*counts[name]) for name in sorted(counts)})


def _score_of(right: int, predicted: int, gold: int) -> Score:
    precision, recall = right / max(1, predicted), right / max(1, gold)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0  # to the last bit that of seqeval
    return Score(precision, recall, f1, gold)


def score_tags(tags: Sequence[tuple[Sequence[str], Sequence[str]]], markup: str) -> tuple[Score, float]:
    """Scores strictly by scheme through seqeval, and the share of words with the right tag.

    Args:
        tags: gold and predicted tags of each sentence, of the scheme ``markup``.
    """
    pieces = [piece for one, other in tags for piece in _pieces(one, other)]
    gold, predicted = ([list(map(canonical_tag, piece[side])) for piece in pieces] for side in (0, 1))
    accuracy = float(accuracy_score(gold, predicted)) if any(gold) else 0.0
    if all(tag == OUTSIDE for tags in (*gold, *predicted) for tag in tags):
        return Score(), accuracy
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # and its mean, before that
            report: dict[str, Any] = classification_report(
                gold, predicted, output_dict=True, mode="strict", scheme=_STRICT_SCHEMES[markup], zero_division=0
            )
    except ValueError:  # not one entity is well-formed: seqeval takes the maximum over no types
        return Score(), accuracy
    micro = report["micro avg"]
    precision, recall, f1 = (float(micro[name]) for name in ("precision", "recall", "f1-score"))
    return Score(precision, recall, f1, int(micro["support"])), accuracy


def _pieces(gold: Sequence[str], predicted: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Cuts long documents where both sides have ``O``: seqeval's time grows with the square of their length."""
    start = 0
    for position, (one, other) in enumerate(zip(gold, predicted, strict=True)):
        if position - start >= _LONG_DOCUMENT and one == other == OUTSIDE:
            yield gold[start:position], predicted[start:position]
            start = position
    yield gold[start:], predicted[start:]


def score_table(scores: EntityScores, title: str, intervals: Mapping[str, Sequence[float]] | None = None) -> Table:
    """Types and their average as a table for the terminal, with 95 % intervals of the average where they are known."""
    table = Table("type", title=title)
    for column in ("precision", "recall", "F1", "support"):
        table.add_column(column, justify="right")
    rows = [*sorted(scores.types.items()), ("micro", scores.micro)]
    rows += [("strict by scheme", scores.strict)] if scores.strict else []
    for name, score in rows:
        if name == "micro":
            table.add_section()
        numbers = (score.precision, score.recall, score.f1)
        table.add_row(name, *(f"{100 * number:.2f}" for number in numbers), str(score.support))
        if name == "micro" and intervals:
            table.add_row("95 % interval", *(f"{100 * low:.1f}-{100 * high:.1f}" for low, high in intervals.values()))
    return table
