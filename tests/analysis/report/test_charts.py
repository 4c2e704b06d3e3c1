"""Where things lie on a chart."""

import re
from collections.abc import Sequence

import pytest

from analysis.report.charts import HEIGHT, WIDTH, Point, line_chart, number, thin, tick_step


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path)]


def test_larger_values_are_higher_and_later_ones_to_the_right() -> None:
    (line,) = line_chart("F1", "step", {"dev": [(0, 10), (50, 20), (100, 40)]}, with_marks=True).lines
    xs, ys = zip(*places(line.path), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)
    assert [mark.text for mark in line.marks] == ["dev 10 at step 0", "dev 20 at step 50", "dev 40 at step 100"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 1e9], [-3.0, 5.0], [87.1, 87.2], [0.0, 1e-5]])
@pytest.mark.parametrize("log", [False, True])
def test_all_that_is_drawn_lies_inside(values: list[float], log: bool) -> None:
    chart = line_chart("loss", "step", {"train": list(enumerate(values))}, log=log)
    assert 2 <= len(chart.y_ticks) <= 20
    for x, y in places(chart.lines[0].path):
        assert chart.left <= x <= chart.right < WIDTH
        assert 0 < chart.top <= y <= chart.bottom < HEIGHT
    assert all(chart.top <= tick.at <= chart.bottom for tick in chart.y_ticks)
    assert all(chart.left <= tick.at <= chart.right for tick in chart.x_ticks)


def test_a_single_point_is_a_chart_too() -> None:
    chart = line_chart("F1", "step", {"dev": [(10, 0.5)]})
    assert places(chart.lines[0].path)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("log", [False, True])
def test_a_line_breaks_where_a_value_is_not_finite(odd: float, log: bool) -> None:
    values = [odd, 1.0, 2.0, odd, 400.0, 300.0, odd]
    chart = line_chart("loss", "step", {"dev": list(enumerate(values))}, with_marks=True, log=log)
    (line,) = chart.lines
    assert [len(places(part)) for part in line.path.split("M")[1:]] == [2, 2]
    assert [mark.text.split()[1] for mark in line.marks] == ["1", "2", "400", "300"]
    assert all(chart.top <= y <= chart.bottom and chart.left < x < chart.right for x, y in places(line.path))


@pytest.mark.parametrize("values", [[float("nan")] * 3, [float("inf")], [float("nan")] * 5000])
@pytest.mark.parametrize("log", [False, True])
def test_a_line_without_a_finite_value_is_empty(values: list[float], log: bool) -> None:
    curves: dict[str, Sequence[Point]] = {"train": list(enumerate(values)), "dev": [(0, 1.0), (1, 2.0)]}
    nothing, line = line_chart("loss", "step", curves, with_marks=True, log=log).lines
    assert (nothing.path, nothing.marks) == ("", [])
    assert len(places(line.path)) == 2
    chart = line_chart("loss", "step", {"train": list(enumerate(values))}, log=log)
    assert [one.path for one in chart.lines] == [""]


def test_a_logarithmic_scale_has_powers_of_ten() -> None:
    chart = line_chart("loss", "step", {"train": [(0, 2.0), (1, 0.004)]}, log=True)
    assert [tick.label for tick in chart.y_ticks] == ["0.001", "0.01", "0.1", "1", "10"]
    distances = {round(one.at - other.at) for one, other in zip(chart.y_ticks, chart.y_ticks[1:], strict=False)}
    assert len(distances) == 1


@pytest.mark.parametrize(("low", "high", "step"), [(0, 1, 0.25), (0, 100, 25), (76, 88, 5), (0, 0.01, 0.0025)])
def test_steps_between_ticks_are_round(low: float, high: float, step: float) -> None:
    assert tick_step(low, high) == pytest.approx(step)


@pytest.mark.parametrize(
    ("value", "written"), [(0, "0"), (0.25, "0.25"), (2634, "2634"), (1e-5, "1e-5"), (2e6, "2,000,000")]
)
def test_numbers_are_short(value: float, written: str) -> None:
    assert number(value) == written


def test_many_points_become_means_of_neighbours() -> None:
    points = [(float(x), float(x % 2)) for x in range(6000)]
    thinned = thin(points)
    assert len(thinned) == 300
    assert all(y == pytest.approx(0.5) for _, y in thinned)
    assert thin(points[:300]) == points[:300]
