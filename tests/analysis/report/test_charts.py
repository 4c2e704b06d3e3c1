"""The charts of the report, and the same in TensorBoard."""

import re
import zlib
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.analysis import analyse
from analysis.calibration import judge, reliability
from analysis.documents import ScoredDocument
from analysis.report.charts import draw_calibration, draw_lines, draw_on_board, step_of, svg
from analysis.report.run_data import event_values
from common.entities import Entity
from tests.analysis.report.scored import LOC, PER, document, documents_of_each_kind
from tests.tools.runs import FinishedRun

NAN, INFINITY = float("nan"), float("inf")


def test_a_chart_is_the_same_svg_each_time_and_its_colours_and_references_belong_to_the_page() -> None:
    curves = {"<F1>": [(0.0, 10.0), (50.0, 20.0)], "recall": [(0.0, NAN), (50.0, 20.0)]}
    first, again = (svg(partial(draw_lines, x_label="step", curves=curves), "F1 < 1", 'last "20"') for _ in range(2))
    assert first == again
    (figure,) = [ElementTree.fromstring(first)]
    texts = {element.text for element in figure.iter() if element.text}
    assert {"F1 < 1", "step", "<F1>", "recall"} <= texts
    assert 'aria-label="F1 &lt; 1: last &#34;20&#34;"' in first
    assert "var(--accent)" in first
    assert set(re.findall(r"#[0-9a-f]{6}", first)) == set()
    ids = re.findall(r' id="([^"]+)"', first)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#(\w+)', first)) == set(ids)
    other = svg(partial(draw_lines, x_label="step", curves=curves), "F1 < 1", "of another split")
    assert not set(ids) & set(re.findall(r' id="([^"]+)"', other))


@pytest.mark.parametrize("values", [[2.0, 0.004], [2.0, 1.0], [0.0, 1.0], [-3.0, 100.0], [NAN, 2.0, INFINITY, 0.004]])
def test_the_scale_is_logarithmic_where_values_span_orders_of_magnitude(values: list[float]) -> None:
    scales = []
    for log in (True, False):
        figure = Figure()
        draw_lines(figure, "step", {"loss": list(enumerate(values))}, log)
        (axes,) = figure.axes
        scales.append(axes.get_yscale())
        finite = [value for value in values if np.isfinite(value)]
        assert axes.get_ylim()[0] <= min(finite) <= max(finite) <= axes.get_ylim()[1]
        drawn = axes.lines[0].get_ydata()
        assert np.array_equal(np.isfinite(values), np.isfinite(drawn))
    assert scales == ["log" if 0.004 in values else "linear", "linear"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("points", [[(10.0, 0.5)], [(0.0, NAN), (1.0, INFINITY)], [(0.0, 0.0), (1.0, 0.0)], []])
def test_curves_with_little_to_show_are_charts_too(points: list[tuple[float, float]]) -> None:
    for log in (True, False):
        ElementTree.fromstring(svg(partial(draw_lines, x_label="step", curves={"dev": points}, log=log), "loss", ""))


def test_calibration_shows_a_point_and_a_bar_per_bin() -> None:
    figure: Any = Figure()
    found = reliability(judge(documents_of_each_kind(4)))
    draw_calibration(figure, found)
    axes, below = figure.axes
    (points,) = (container.lines[0] for container in axes.containers)
    expected = [(one.confidence, one.precision) for one in found.bins]
    assert np.array(points.get_xydata()).tolist() == pytest.approx(np.array(expected))
    assert [bar.get_height() for bar in below.patches] == [one.size for one in found.bins]


def drawn(run: Path, documents: list[ScoredDocument], checkpoint: str = "") -> dict[str, tuple[int, object]]:
    draw_on_board(run, checkpoint, "dev", documents, analyse(documents, None))
    return {value.tag: (step, value) for step, value in event_values(run / "tensorboard")}


def test_the_curve_counts_the_entities_that_are_sure_enough(tmp_path: Path) -> None:
    gold = [Entity(PER, 0, 0), Entity(LOC, 1, 1), Entity(LOC, 2, 2)]
    sure = document("a", "x y z", gold, gold[:1], confidence=0.9)
    doubtful = document("b", "x y z", [], [Entity(PER, 1, 1)], confidence=0.3)
    _, value = drawn(tmp_path, [sure, doubtful])["dev/entities"]
    numbers = np.array(value.tensor.float_val).reshape(6, 127)  # type: ignore[attr-defined]
    right, wrong, _, left_out, precision, recall = numbers
    assert (right[0], wrong[0], left_out[0]) == (1, 1, 2)
    assert (precision[0], recall[0]) == pytest.approx((1 / 2, 1 / 3))
    middle = 63  # confidence 0.5
    assert (right[middle], wrong[middle], left_out[middle]) == (1, 0, 2)
    assert (right[-1], wrong[-1], left_out[-1]) == (0, 0, 3)
    assert (precision[-1], recall[-1]) == (1, 0)


def test_pictures_are_not_empty(tmp_path: Path) -> None:
    values = drawn(tmp_path, documents_of_each_kind(4))
    for name in ("dev/confusion", "dev/calibration"):
        picture = values[name][1].image  # type: ignore[attr-defined]
        assert picture.encoded_image_string.startswith(b"\x89PNG")
        assert picture.width == 495
        assert len(zlib.compress(picture.encoded_image_string)) > 4000


def test_a_split_without_entities_has_a_curve_and_no_pictures(tmp_path: Path) -> None:
    assert set(drawn(tmp_path, [document("a", "x y", [], [])])) == {"dev/entities"}


def test_a_checkpoint_stands_at_its_step_and_the_final_model_at_the_last(crf_run: FinishedRun, tmp_path: Path) -> None:
    documents = documents_of_each_kind(1)
    assert drawn(tmp_path, documents, "checkpoint-16")["dev/entities"][0] == 16
    assert step_of(crf_run.folder, "") == step_of(crf_run.folder, "checkpoint-best") > 16
    assert step_of(tmp_path, "") == 0


def test_a_run_draws_both_splits_and_its_checkpoints(crf_run: FinishedRun) -> None:
    values = list(event_values(crf_run.folder / "tensorboard"))
    for split in ("dev", "test"):
        steps = {step for step, value in values if value.tag == f"{split}/entities"}
        assert steps >= {16, step_of(crf_run.folder, "")}
