"""Geometry of the charts: where lines, ticks and points lie. How they look is up to `page/charts.html`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 34
_MOST_POINTS = 300
_LOG_FROM = 30  # largest by smallest value

Point = tuple[float, float]


class Tick(NamedTuple):
    at: float
    label: str


class Mark(NamedTuple):
    """A point to be seen by itself, with what it says."""

    x: float
    y: float
    text: str


@dataclass
class Line:
    """A named curve; ``path`` is what SVG draws."""

    name: str
    path: str
    marks: list[Mark]


@dataclass
class Chart:
    """All that is drawn, in the units of a picture of ``WIDTH`` by ``HEIGHT``."""

    title: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def line_chart(
    title: str, x_label: str, curves: Mapping[str, Sequence[Point]], with_marks: bool = False, log: bool = False
) -> Chart:
    """Curves over a common axis, with a gap where a value is not finite.

    Args:
        curves: the points of each by name, in order.
        with_marks: whether each point is drawn and can be asked for its value.
        log: whether the scale is logarithmic where values span orders of magnitude.
    """
    thinned = {name: thin(points) for name, points in curves.items()}
    xs = [x for points in thinned.values() for x, _ in points]
    ys = [y for points in thinned.values() for _, y in points if isfinite(y)]
    y_scale = Axis.logarithmic if log and spans_orders(ys) else Axis.round
    y_axis = y_scale(ys, HEIGHT - _BOTTOM, _TOP)
    x_axis = Axis.tight(xs, _LEFT, WIDTH - _RIGHT)
    lines = []
    for name, points in thinned.items():
        path, marks = "", []
        for finite, part in groupby(points, lambda point: isfinite(point[1])):
            if finite:
                shown = [
                    Mark(x_axis.place(x), y_axis.place(y), f"{name} {number(y)} at {x_label} {number(x)}")
                    for x, y in part
                ]
                path += "M" + "L".join(f"{mark.x:g},{mark.y:g}" for mark in shown)
                marks += shown
        lines.append(Line(name, path, marks if with_marks else []))
    return Chart(title, x_label, x_axis.ticks(), y_axis.ticks(), lines)


@dataclass
class Axis:
    """Values from ``low`` to ``high`` on the way from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    @classmethod
    def tight(cls, values: Sequence[float], start: float, end: float) -> "Axis":
        """From the smallest value to the largest."""
        low, high = min(values, default=0), max(values, default=0)
        reach = 0 if low < high else 0.5
        return cls(low - reach, high + reach, start, end)

    @classmethod
    def round(cls, values: Sequence[float], start: float, end: float) -> "Axis":
        """From a tick to a tick."""
        axis = cls.tight(values, start, end)
        step = tick_step(axis.low, axis.high)
        return cls(floor(axis.low / step) * step, ceil(axis.high / step) * step, start, end)

    @classmethod
    def logarithmic(cls, values: Sequence[float], start: float, end: float) -> "Axis":
        """From a power of ten to a power of ten."""
        return cls(10 ** floor(log10(min(values))), 10 ** ceil(log10(max(values))), start, end, is_log=True)

    def place(self, value: float) -> float:
        low, high, at = (log10(one) if self.is_log else one for one in (self.low, self.high, value))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[Tick]:
        if self.is_log:
            values = [10.0**power for power in range(round(log10(self.low)), round(log10(self.high)) + 1)]
        else:
            step = tick_step(self.low, self.high)
            first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
            values = [index * step for index in range(first, last + 1)]
        return [Tick(self.place(value), number(value)) for value in values]


def spans_orders(values: Sequence[float]) -> bool:
    """Whether a linear scale would hide the small ones."""
    return min(values, default=0) > 0 and max(values) / min(values) > _LOG_FROM


def tick_step(low: float, high: float, about: int = 4) -> float:
    """1, 2, 2.5 or 5 times a power of ten, so that there are about so many steps."""
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)


def number(value: float) -> str:
    """As short as four digits let it be."""
    return f"{value:.4g}".replace("e-0", "e-") if abs(value) < 1e4 else f"{value:,.0f}"


def thin(points: Sequence[Point]) -> list[Point]:
    """Means of neighbours, where there are more points than can be seen."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    parts = np.array_split(np.array(points), _MOST_POINTS)
    return [(float(x), float(y)) for x, y in (part.mean(axis=0) for part in parts)]
