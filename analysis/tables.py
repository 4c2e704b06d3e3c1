"""Tables of the detailed analysis for the terminal."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from rich.table import Table

from analysis.analysis import Analysis
from analysis.metrics import Score
from analysis.schemes import SchemeScore

_CONFUSIONS_SHOWN = 10
_NAMES = ("reading", "part", "error", "gold", "predicted")


def analysis_tables(analysis: Analysis) -> Table:
    """Make the tables of matching schemes, parts, kinds of error, and the most frequent confusions."""
    by_length = {f"length {name}": score for name, score in analysis.lengths.items()}
    parts = {**(analysis.novelty or {}), **by_length}.items()
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        _table(("reading", "P", "R", "F1"), ((name, *_percent(score)) for name, score in analysis.schemes.items())),
        _table(
            ("part", "P", "R", "F1", "support"),
            ((name, *_percent(score), str(score.support)) for name, score in parts),
        ),
    )
    grid.add_row(
        _table(("error", "entities"), ((kind, str(number)) for kind, number in analysis.errors.items())),
        _table(("gold", "predicted", "entities"), islice(confusions(analysis.confusion), _CONFUSIONS_SHOWN)),
    )
    return grid


def confusions(confusion: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield gold type, predicted type and count, most frequent first; ``-`` for missed and spurious entities."""
    types = confusion["types"]
    cells = [
        *(
            (gold, predicted, confusion["matrix"][i][j])
            for i, gold in enumerate(types)
            for j, predicted in enumerate(types)
            if i != j
        ),
        *((gold, "-", number) for gold, number in zip(types, confusion["missed"], strict=True)),
        *(("-", predicted, number) for predicted, number in zip(types, confusion["spurious"], strict=True)),
    ]
    for gold, predicted, number in sorted(cells, key=lambda cell: -cell[2]):
        if number:
            yield gold, predicted, str(number)


def _percent(score: Score | SchemeScore) -> list[str]:
    return [f"{100 * number:.2f}" for number in (score.precision, score.recall, score.f1)]


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in _NAMES else "right")
    for row in rows:
        table.add_row(*row)
    return table
