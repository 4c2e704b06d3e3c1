"""The report of a run: one HTML file that needs nothing else."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.pairs import KINDS
from analysis.report.charts import draw_lines, svg
from analysis.report.run_data import RunData, read_run
from analysis.report.split_view import sentence_rows, split_view
from common.run_files import RunFolder

_PARTS = Path(__file__).parent / "page"
_CURVES = {
    "Mean loss per word": {"train": "train/loss", "dev": "dev/loss"},
    "Scores on dev, %": {"F1": "dev/f1", "precision": "dev/precision", "recall": "dev/recall"},
}
_RATE = "learning_rate/"
_RUN_FACTS = {
    "task_name": "task",
    "task_type": "task",
    "model_name_or_path": "encoder",
    "markup": "tag scheme",
    "num_train_epochs": "epochs",
    "max_epochs": "epochs",
    "learning_rate": "learning rate",
    "seed": "seed",
}


def write_report(folder: Path, output: Path | None = None, head: str = "") -> Path:
    """Write the report of a run to ``output``, by default ``report.html`` in its folder, and return the path.

    Args:
        head: the head of the run if it is not built in, as ``module:Class``.
    """
    path = output or RunFolder(folder).report
    path.write_text(report_page(read_run(folder, head)), "utf-8")
    return path


def report_page(run: RunData) -> str:
    """The page as HTML."""
    types = sorted({name for split in run.splits for name in split.results["confusion"]["types"]})
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=2: f"{100 * share:.{digits}f}"
    environment.globals["hues"] = {name: round(20 + 360 * index / len(types)) for index, name in enumerate(types)}
    sentences = {split.name: sentence_rows(split.documents, types) for split in run.splits}
    return environment.get_template("page.html").render(
        run=run,
        facts={label: run.arguments[name] for name, label in _RUN_FACTS.items() if name in run.arguments},
        source=lambda name: Markup((_PARTS / name).read_text("utf-8")),
        splits=[split_view(split) for split in run.splits],
        curves=_curves(run),
        data=_embedded({"types": types, "kinds": KINDS, "splits": sentences}),
        kinds=KINDS,
    )


def _curves(run: RunData) -> list[Markup]:
    """Charts of the training as SVG."""
    rates = {tag.removeprefix(_RATE): tag for tag in run.scalars if tag.startswith(_RATE)}
    charts = []
    for title, tags in (_CURVES | {"Learning rate": rates}).items():
        scale = 100 if title.endswith("%") else 1
        curves = {
            name: [(step, scale * value) for step, value in sorted(run.scalars[tag].items())]
            for name, tag in tags.items()
            if tag in run.scalars
        }
        if curves:
            last = (f"{name} {points[-1][1]:.4g} at step {points[-1][0]}" for name, points in curves.items())
            draw = partial(draw_lines, x_label="step", curves=curves, log="loss" in title)
            charts.append(svg(draw, title, "; ".join(last)))
    return charts


def _embedded(data: Any) -> Markup:
    """JSON that cannot end the script element that contains it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup(text.encode("utf-8", "replace").decode("utf-8"))
