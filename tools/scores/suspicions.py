"""What a reader of the scores should be told in words."""

from collections.abc import Iterator
from typing import Any


def suspicions(confusion: dict[str, Any]) -> Iterator[str]:
    """Nothing predicted at all, or nothing of a type that there is; see `tools.scores.pairs.type_confusion`."""
    types, rows = confusion["types"], confusion["matrix"]
    gold = {name: sum(row) + missed for name, row, missed in zip(types, rows, confusion["missed"], strict=True)}
    columns = zip(*rows, strict=True)
    predicted = {
        name: sum(column) + spurious
        for name, column, spurious in zip(types, columns, confusion["spurious"], strict=True)
    }
    if any(gold.values()) and not any(predicted.values()):
        advice = "train longer, or raise the learning rates (a new head wants 1e-3 to 1e-2)"
        yield f"nothing is predicted but O, where there are {sum(gold.values())} entities; {advice}"
        return
    never = [f"{name} ({count} in the gold data)" for name, count in gold.items() if count and not predicted[name]]
    if never:
        yield f"no entity is ever predicted of type {', '.join(never)}"
