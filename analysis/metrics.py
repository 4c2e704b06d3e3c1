"""Entity scores through seqeval: in conlleval's reading, which papers report, and strictly by scheme."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB1, IOB2, IOBES, Prefix, Tag, Token

from common.tag_schemes import OUTSIDE, canonical_tag, split_tag


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
        micro: over all entities, in conlleval's reading.
        strict: over all entities, counting only those that are well-formed in the scheme.
        types: by type, in conlleval's reading.
        accuracy: share of the words that have the right tag.
    """

    micro: Score = field(default_factory=Score)
    strict: Score = field(default_factory=Score)
    types: dict[str, Score] = field(default_factory=dict)
    accuracy: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Flat headline numbers, and the types under ``types``."""
        return {
            "precision": self.micro.precision,
            "recall": self.micro.recall,
            "f1": self.micro.f1,
            "support": self.micro.support,
            "accuracy": self.accuracy,
            "strict_precision": self.strict.precision,
            "strict_recall": self.strict.recall,
            "strict_f1": self.strict.f1,
            "types": {name: asdict(score) for name, score in self.types.items()},
        }


def score_entities(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], markup: str) -> EntityScores:
    """Compares predicted tags with gold ones, sentence by sentence; an entity counts if span and type agree.

    Args:
        gold, predicted: tags of each sentence, of the scheme ``markup``.
    """
    pieces = [piece for one, other in zip(gold, predicted, strict=True) for piece in _pieces(one, other)]
    # seqeval knows neither M nor, where it reads as conlleval does, L and U
    gold_tags, predicted_tags = ([list(map(canonical_tag, piece[side])) for piece in pieces] for side in (0, 1))
    accuracy = float(accuracy_score(gold_tags, predicted_tags)) if any(gold_tags) else 0.0
    if all(tag == OUTSIDE for tags in (*gold_tags, *predicted_tags) for tag in tags):
        return EntityScores(accuracy=accuracy)
    lenient = classification_report(gold_tags, predicted_tags, output_dict=True, zero_division=0)
    strict = _strict_report(gold_tags, predicted_tags, markup)
    named = {split_tag(tag)[1] for tags in (*gold_tags, *predicted_tags) for tag in tags}
    types = {  # seqeval has a name of its own for what has none
        name if name in named else "": _score(values) for name, values in lenient.items() if not name.endswith(" avg")
    }
    strict_score = _score(strict["micro avg"]) if strict else Score()
    return EntityScores(_score(lenient["micro avg"]), strict_score, types, accuracy)


def _pieces(gold: Sequence[str], predicted: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Cuts long documents where both sides have ``O``: seqeval's time grows with the square of their length."""
    start = 0
    for position, (one, other) in enumerate(zip(gold, predicted, strict=True)):
        if position - start >= _LONG_DOCUMENT and one == other == OUTSIDE:
            yield gold[start:position], predicted[start:position]
            start = position
    yield gold[start:], predicted[start:]


def _strict_report(gold: list[list[str]], predicted: list[list[str]], markup: str) -> dict[str, Any] | None:
    """``None`` where neither side has a single well-formed entity."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # and its mean, before that
            report: dict[str, Any] = classification_report(
                gold, predicted, output_dict=True, mode="strict", scheme=_STRICT_SCHEMES[markup], zero_division=0
            )
    except ValueError:  # seqeval takes the maximum over no types
        return None
    return report


def _score(values: dict[str, Any]) -> Score:
    names = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
    return Score(**{name: float(values[key]) for name, key in names.items()}, support=int(values["support"]))


def score_table(scores: EntityScores, title: str, intervals: Mapping[str, Sequence[float]] | None = None) -> Table:
    """Types and their average as a table for the terminal, with 95 % intervals of the average where they are known."""
    table = Table("type", title=title)
    for column in ("precision", "recall", "F1", "support"):
        table.add_column(column, justify="right")
    rows = [*sorted(scores.types.items()), ("micro", scores.micro), ("strict by scheme", scores.strict)]
    for name, score in rows:
        if name == "micro":
            table.add_section()
        numbers = (score.precision, score.recall, score.f1)
        table.add_row(name, *(f"{100 * number:.2f}" for number in numbers), str(score.support))
        if name == "micro" and intervals:
            table.add_row("95 % interval", *(f"{100 * low:.1f}-{100 * high:.1f}" for low, high in intervals.values()))
    return table
