"""Annotations that are probably wrong as an HTML page, each in its sentence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_PARTS = Path(__file__).parent / "page"
_SHOWN = 2000  # the page stays small enough for a browser


def write_label_errors_page(records: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write the first records of ``label_errors.jsonl`` as a page, and return its path."""
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("label_errors.html").render(
        total=len(records),
        rows=[{**record, "parts": _parts(record)} for record in records[:_SHOWN]],
        style=Markup((_PARTS / "style.css").read_text("utf-8")),
    )
    path.write_text(page.encode("utf-8", "replace").decode("utf-8"), "utf-8")
    return path


def _parts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The words of a record in runs, each with the classes ``gold`` and ``suggested`` that apply to it."""
    spans = {"gold": record["gold"], "suggested": record["suggestion"]}
    runs: list[tuple[str, list[str]]] = []
    for place, word in enumerate(record["words"]):
        kinds = " ".join(name for name, one in spans.items() if one and one["first_word"] <= place <= one["last_word"])
        if not runs or runs[-1][0] != kinds:
            runs.append((kinds, []))
        runs[-1][1].append(word)
    return [(kinds, " ".join(words)) for kinds, words in runs]
