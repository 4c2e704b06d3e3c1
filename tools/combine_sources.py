"""Combine what several erring sources say of texts into one annotation, which is partial where they leave doubt.

python -m tools.combine_sources layers.jsonl anna=anna.jsonl --gazetteer drugs.tsv --output train.jsonl

``docs/labels.md`` explains the files, the estimate and the result.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.combination import Combined, combine, decided
from analysis.source_reliability import Rates
from common.command_line import Bounds, CommandLine
from common.entities import Annotation, Entity, outermost
from common.log import console, console_table, setup_logging
from processors.examples import DataError, Example, Findings
from processors.formats.writers import FORMATS
from processors.layers import LayeredText, read_layers
from processors.offset_units import OFFSET_UNITS
from processors.spans import SPAN_EDGES, Reading
from processors.text.gazetteer import Gazetteer, read_gazetteer
from processors.text.word_cutting import WORD_UNITS
from tools.run_folder import write_json
from tools.script import run_script

logger = logging.getLogger("tools.combine_sources")  # also when it is the main module
_FEW = 3  # the agreement of fewer sources does not tell which of them is right


def main() -> None:
    parser = CommandLine(description=(__doc__ or "").partition("\n")[0])
    text = "JSON records with sources, texts without, or gold annotation in any format; NAME=FILE: one source"
    parser.add_argument("files", nargs="+", metavar="FILE", help=text)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines to write; the report goes beside it")
    text = "known reliability of a source: NAME=SHARE, or NAME=PRECISION,RECALL; others are estimated"
    parser.add_argument("--reliability", nargs="+", default=[], type=_reliability, metavar="NAME=SHARE", help=text)
    text = "the types that a source knows: NAME=TYPE,TYPE; default: all, of a gazetteer those in it"
    parser.add_argument("--source_types", nargs="+", default=[], type=_types, metavar="NAME=TYPES", help=text)
    text = "dictionary of lines SURFACE<tab>TYPE, a source with the name of the file"
    parser.add_argument("--gazetteer", nargs="+", default=[], type=Path, metavar="FILE", help=text)
    parser.add_argument("--ignore_case", action="store_true", help="match dictionaries in upper and lower case")
    text = "least probability of what is annotated, as an entity or as none; other words are unknown; default: 0.9"
    parser.add_argument("--threshold", type=Bounds(float, at_least=0.5, at_most=1), default=0.9, help=text)
    text = "a type is complete in a text if its sources miss at most this share of its entities; default: 0.2"
    parser.add_argument("--max_missed", type=Bounds(float, above=0, at_most=1), default=0.2, help=text)
    parser.add_argument("--nested", action="store_true", help="entities may overlap")
    parser.add_argument("--word_unit", default="auto", choices=WORD_UNITS, help="how raw text is split into words")
    edges = "entities that start or end inside a word"
    parser.add_argument("--span_edges", default="snap", choices=SPAN_EDGES, help=edges)
    parser.add_argument("--offset_unit", default="auto", choices=OFFSET_UNITS, help="how files count characters")
    args = parser.parse_args()
    setup_logging()
    if args.output.exists():
        raise DataError("already exists; name a new file", args.output)
    reading = Reading(args.word_unit, args.span_edges, args.offset_unit)
    texts, findings = read_layers(args.files, reading)
    for path in args.gazetteer:
        _annotate(texts, path.stem, read_gazetteer(path, args.ignore_case, args.word_unit))
    _check_names(texts, {"reliability": dict(args.reliability), "source_types": dict(args.source_types)})
    _restrict(texts, dict(args.source_types), args.nested, findings)
    combined = combine(texts, dict(args.reliability), args.nested)
    estimated = [name for name in combined.names if name not in dict(args.reliability)]
    if estimated and len(combined.names) < _FEW and not any(text.example.entities for text in texts):
        message = (
            "The agreement of %d sources does not tell which is right: add --reliability, or texts with gold labels"
        )
        logger.warning(message, len(combined.names))
    report = write_combined(combined, args.output, args.threshold, args.max_missed, findings)
    _show(report)
    logger.info("%d texts written to %s, the report to %s", report["texts"], args.output, report_of(args.output))


def _reliability(text: str) -> tuple[str, Rates]:
    name, _, value = text.partition("=")
    try:
        rates = [float(number) for number in value.split(",")]
    except ValueError:
        rates = []
    if not name or len(rates) not in (1, 2) or not all(0 < rate < 1 for rate in rates):
        raise argparse.ArgumentTypeError("must be NAME=SHARE or NAME=PRECISION,RECALL, with shares between 0 and 1")
    return name, Rates(rates[0], rates[-1])


def _types(text: str) -> tuple[str, frozenset[str]]:
    name, _, value = text.partition("=")
    types = frozenset(filter(None, value.split(",")))
    if not name or not types:
        raise argparse.ArgumentTypeError("must be NAME=TYPE,TYPE,...")
    return name, types


def _annotate(texts: Sequence[LayeredText], name: str, gazetteer: Gazetteer) -> None:
    """Add the matches of a dictionary to texts as a source."""
    if any(name in text.layers for text in texts):
        raise ValueError(f"--gazetteer {name}: a source has this name; rename the file")
    types = gazetteer.types
    for text in tqdm(texts, desc=f"Matching {name}", unit=" texts", leave=False, disable=None):
        words = text.example.words
        entities = [Entity(kind, *found[:2]) for found in gazetteer.matches(words) for kind in sorted(found.types)]
        text.layers[name] = Annotation(len(words), entities, complete=types)


def _check_names(texts: Sequence[LayeredText], named: Mapping[str, Iterable[str]]) -> None:
    known = {name for text in texts for name in text.layers}
    if not known and not any(text.example.entities is not None for text in texts):
        raise ValueError('no text has "sources" or an annotation; see docs/labels.md')
    there = ", ".join(sorted(known)) or "none"
    faults = [
        f"--{flag} {name}: there is no such source; there are {there}"
        for flag, names in named.items()
        for name in names
        if name not in known
    ]
    if faults:
        raise ValueError("; ".join(faults))


def _restrict(
    texts: Sequence[LayeredText], types: Mapping[str, frozenset[str]], nested: bool, findings: Findings
) -> None:
    """Leave out what a source says of types that it does not know, and what flat entities cannot express."""
    for text in texts:
        example = text.example
        for name, layer in text.layers.items():
            known, entities = types.get(name, layer.complete), list(layer.entities or ())
            if name in types:
                kept = [one for one in entities if one.type in types[name]]
                findings.add(f"entities of {name} that are not of its --source_types", count=len(entities) - len(kept))
                entities = kept
            entities = _flat(entities, name, findings) if not nested else entities
            text.layers[name] = replace(layer, entities=entities, complete=known)
        if not nested and example.entities is not None:
            example.entities = _flat(example.entities, "the gold annotation", findings)


def _flat(entities: Sequence[Entity], name: str, findings: Findings) -> list[Entity]:
    """Keep the longest of entities that overlap, with all types that they have."""
    words = {one[1:] for one in outermost(entities)}
    kept = [one for one in entities if one[1:] in words]
    kind = f"entities of {name} that overlap longer ones, left out (--nested keeps them)"
    findings.add(kind, count=len(entities) - len(kept))
    return kept


def report_of(output: Path) -> Path:
    """The path of the report on a combined corpus."""
    return output.with_suffix(".sources.json")


def write_combined(
    combined: Combined, output: Path, threshold: float, max_missed: float, findings: Findings
) -> dict[str, Any]:
    """Write the annotated texts, and return and write the report.

    Args:
        findings: of the files, for the report.
    """
    totals: Counter[str] = Counter(texts=0, words=0, entities=0, unknown_words=0, incomplete_texts=0)

    def counted() -> Iterator[Example]:
        for example in decided(combined, threshold, max_missed):
            totals["texts"] += 1
            totals["words"] += len(example.words)
            totals["entities"] += len(example.entities or ())
            totals["unknown_words"] += len(example.words) - example.annotation.annotated_words
            totals["incomplete_texts"] += example.complete is not None
            yield example

    output.parent.mkdir(parents=True, exist_ok=True)
    written = FORMATS["jsonl"].write(tqdm(counted(), desc="Writing", unit=" texts", leave=False, disable=None), output)
    findings.add("texts that no source looked at, left out", count=len(combined.texts) - totals["texts"])
    report = {
        **totals,
        "types": list(combined.types),
        "spans": _decisions(combined, threshold),
        "sources": {name: _of_source(combined, place) for place, name in enumerate(combined.names)},
        "conflicts": [_conflicts(combined, *pair) for pair in combinations(combined.names, 2)],
        "dropped": findings.counts | written.counts,
        "remarks": findings.remarks,
    }
    write_json(report_of(output), report)
    return report


def _decisions(combined: Combined, threshold: float) -> dict[str, int]:
    """How many of the spans that anybody gave are entities, none, and undecided."""
    posteriors = combined.found.posteriors[: len(combined.items.spans)]
    entities = int((posteriors[:, 1:] >= threshold).any(1).sum())
    none = int((posteriors[:, 0] >= threshold).sum())
    return {"entities": entities, "none": none, "undecided": len(posteriors) - entities - none}


def _of_source(combined: Combined, place: int) -> dict[str, Any]:
    """Counts and estimated rates of a source, together and by type."""
    name, size = combined.names[place], len(combined.items.spans)
    others = combined.items.votes[:size]
    votes = others[:, place]
    posteriors = combined.found.posteriors[:size]
    looked = ~votes.all(1)
    said = ~votes[:, 0] & ~votes[:, -1]
    agreeing = (others & votes[:, None])[..., 1:-1].any(-1) & ~others[..., 0] & ~others[..., -1]
    agreeing[:, place] = False
    checked = (~others.all(-1)).sum(1) > 1
    layers = [text.layers[name] for text in combined.texts if name in text.layers]
    types, expected, found = {}, 0.0, 0.0
    for number, kind in enumerate(combined.types, start=1):
        mine = said & votes[:, number]
        covers = any(not layer.open_types([kind]) for layer in layers)
        true = float(posteriors[looked, number].sum())
        recall = combined.recall(name, kind) if covers else None
        if recall is not None:
            expected, found = expected + true, found + true * recall
        precision = float(posteriors[mine, number].mean()) if mine.any() else None
        types[kind] = {"spans": int(mine.sum()), "precision": precision, "recall": recall}
    right = (posteriors * votes[:, :-1])[said].sum(1)
    return {
        "texts": len(layers),
        "spans": int(said.sum()),
        "agreement": float(agreeing[said & checked].any(1).mean()) if (said & checked).any() else None,
        "precision": float(right.mean()) if right.size else None,
        "recall": found / expected if expected else None,
        "types": types,
    }


def _conflicts(combined: Combined, one: str, other: str) -> dict[str, Any]:
    """How many spans of two sources that looked at the same texts are equal, or overlap with a difference."""
    counts = Counter(same=0, other_type=0, other_words=0)
    for text in combined.texts:
        if one not in text.layers or other not in text.layers:
            continue
        theirs: dict[tuple[int, int], set[str]] = {}
        for entity in text.layers[other].entities or ():
            theirs.setdefault(entity[1:], set()).add(entity.type)
        covered = {word for first, last in theirs for word in range(first, last + 1)}
        for words in {entity[1:] for entity in text.layers[one].entities or ()}:
            types = {entity.type for entity in text.layers[one].entities or () if entity[1:] == words}
            if words in theirs:
                counts["same" if types & theirs[words] else "other_type"] += 1
            elif covered.intersection(range(words[0], words[1] + 1)):
                counts["other_words"] += 1
    return {"sources": [one, other], **counts}


def _show(report: Mapping[str, Any]) -> None:
    """Print the tables of the report."""
    rates = ("agreement", "precision", "recall")
    rows = []
    for name, source in report["sources"].items():
        rows.append([name, "all", str(source["texts"]), str(source["spans"]), *(_share(source[one]) for one in rates)])
        rows += [
            ["", kind, "", str(one["spans"]), "", _share(one["precision"]), _share(one["recall"])]
            for kind, one in source["types"].items()
        ]
    columns = ("source", "type", "texts", "spans", *rates)
    console().print(console_table(columns, rows, names=2, title="Sources, with estimated precision and recall"))
    pairs = [
        [*one["sources"], *(str(one[kind]) for kind in ("same", "other_type", "other_words"))]
        for one in report["conflicts"]
    ]
    if pairs:
        kinds = ("source", "and", "same spans", "other type", "other words")
        console().print(console_table(kinds, pairs, names=2, title="Agreement and conflicts"))
    for kind, count in report["dropped"].items():
        logger.warning("%d %s", count, kind)
    spans = report["spans"]
    message = "%d spans are entities, %d are none, %d are undecided; %d of %d words are unknown; %d texts incomplete"
    counts = (report[name] for name in ("unknown_words", "words", "incomplete_texts"))
    logger.info(message, spans["entities"], spans["none"], spans["undecided"], *counts)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    run_script(main)
