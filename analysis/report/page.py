"""From a run's folder to one file that a browser shows without anything else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.pairs import KINDS
from analysis.report.charts import Chart, line_chart
from analysis.report.run_data import RunData, Split, read_run
from analysis.report.split_view import sentence_rows, split_view
from common.run_files import RunFolder

_PARTS = Path(__file__).parent / "page"
_CURVES = {
    "Loss a word": {"train": "train/loss", "dev": "dev/loss"},
    "Scores of dev, %": {"F1": "dev/f1", "precision": "dev/precision", "recall": "dev/recall"},
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


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Writes ``report.html`` into the folder of a run, or the file ``output``, and returns where it is."""
    path = output or RunFolder(folder).report
    path.write_text(report_page(read_run(folder)), "utf-8")
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
    environment.filters["tenths"] = tenths
    environment.globals["percent"] = percent
    environment.globals["hues"] = {name: round(20 + 360 * index / len(types)) for index, name in enumerate(types)}
    return environment.get_template("page.html").render(
        run=run,
        facts=_facts(run),
        source=lambda name: Markup((_PARTS / name).read_text("utf-8")),
        splits=[split_view(split) for split in run.splits],
        curves=_curves(run),
        data=_embedded({"types": types, "kinds": KINDS, "splits": _rows(run.splits, types)}),
        kinds=KINDS,
    )


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}"


def tenths(value: float) -> str:
    return f"{value:.1f}".replace("-0.0", "0.0")


def _facts(run: RunData) -> dict[str, Any]:
    return {label: run.arguments[name] for name, label in _RUN_FACTS.items() if name in run.arguments}


def _curves(run: RunData) -> list[Chart]:
    charts = []
    wanted = _CURVES | {"Learning rate": {name[len(_RATE) :]: name for name in run.scalars if name.startswith(_RATE)}}
    for title, names in wanted.items():
        scale = 100 if title.endswith("%") else 1
        curves = {
            name: [(step, scale * value) for step, value in sorted(run.scalars[tag].items())]
            for name, tag in names.items()
            if tag in run.scalars
        }
        if curves:
            charts.append(line_chart(title, "step", curves, with_marks=title in _CURVES, log="Loss" in title))
    return charts


def _rows(splits: Sequence[Split], types: Sequence[str]) -> dict[str, Any]:
    return {split.name: sentence_rows(split.documents, types) for split in splits}


def _embedded(data: Any) -> Markup:
    """As JSON that cannot end the script element in which it stands."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup(text.encode("utf-8", "replace").decode("utf-8"))
