"""The counts of ``conlleval``, by its published rules: it walks over the words once and never builds a span.

Tjong Kim Sang and De Meulder 2003, https://www.clips.uantwerpen.be/conll2003/ner/. Its tables know B, I, E and O; S,
and B right after E, are added as those who took it over to BIOES did: S opens and closes, E closes whatever follows.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_CLOSES = {"BB", "BO", "IB", "IO", "EE", "EI", "EO", "EB", "ES", "BS", "IS", "SB", "SI", "SE", "SO", "SS"}
_OPENS = {"BB", "IB", "OB", "OI", "EE", "EI", "OE", "EB", "ES", "BS", "IS", "OS", "SB", "SI", "SE", "SS"}


class Counted(NamedTuple):
    """How many chunks of each type are right, predicted and gold."""

    right: Counter[str]
    predicted: Counter[str]
    gold: Counter[str]

    def precision_recall_f1(self, types: Sequence[str] | None = None) -> tuple[float, float, float]:
        right, predicted, gold = (
            sum(count for name, count in counter.items() if types is None or name in types) for counter in self
        )
        precision = right / predicted if predicted else 0.0
        recall = right / gold if gold else 0.0
        return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def conlleval(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Counted:
    """Counts over sentences; each ends with an O on both sides, as the empty line between sentences does."""
    counted = Counted(Counter(), Counter(), Counter())
    for tags in zip(gold, predicted, strict=True):
        open_type: str | None = None  # of a chunk that is right so far
        before = ("O", "O")
        for pair in [*zip(*tags, strict=True), ("O", "O")]:
            closes = [_closes(left, right) for left, right in zip(before, pair, strict=True)]
            opens = [_opens(left, right) for left, right in zip(before, pair, strict=True)]
            types = [_type(tag) for tag in pair]
            if open_type is not None:
                if all(closes):
                    counted.right[open_type] += 1
                    open_type = None
                elif any(closes):
                    open_type = None
            if all(opens) and types[0] == types[1]:
                open_type = types[0]
            counted.gold[types[0]] += opens[0]
            counted.predicted[types[1]] += opens[1]
            before = pair
    return counted


def _closes(left: str, right: str) -> bool:
    return left[0] + right[0] in _CLOSES or (left != "O" and _type(left) != _type(right))


def _opens(left: str, right: str) -> bool:
    return left[0] + right[0] in _OPENS or (right != "O" and _type(left) != _type(right))


def _type(tag: str) -> str:
    return tag[2:]
