"""Scored documents, and run folders that hold them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.analysis import analyse
from analysis.documents import ScoredDocument, write_documents
from common.entities import Entity
from common.tag_schemes import MARKUPS, entities_to_tags
from tests.tags import scores_of_tags

PER, LOC = "PER", "LOC"


def document(
    guid: str, words: str, gold: Sequence[Entity], predicted: Sequence[Entity], confidence: float = 0.75
) -> ScoredDocument:
    return ScoredDocument(guid, words.split(" "), list(gold), list(predicted), (confidence,) * len(predicted))


def documents_of_each_kind(copies: int) -> list[ScoredDocument]:
    """Six documents per copy, each with one entity and one kind of error, named in its words."""
    place = (1, 2)
    kinds = {
        "right": ([Entity(PER, *place)], [Entity(PER, *place)]),
        "type": ([Entity(PER, *place)], [Entity(LOC, *place)]),
        "boundary": ([Entity(PER, *place)], [Entity(PER, 1, 1)]),
        "both": ([Entity(PER, *place)], [Entity(LOC, 2, 2)]),
        "missed": ([Entity(LOC, *place)], []),
        "spurious": ([], [Entity(LOC, *place)]),
    }
    return [
        document(
            f"{kind}-{copy}",
            f"{kind} Anna Lee 🎈 of <b>Rome</b>",
            gold,
            predicted,
            confidence=(copy + 1) / (copies + 1),
        )
        for copy in range(copies)
        for kind, (gold, predicted) in kinds.items()
    ]


def results_of(documents: Sequence[ScoredDocument]) -> dict[str, Any]:
    """Results as `tools.evaluate.evaluate` writes them."""
    scheme = MARKUPS["bios"]
    gold = [entities_to_tags(one.gold, len(one.words), scheme) for one in documents]
    predicted = [entities_to_tags(one.predicted, len(one.words), scheme) for one in documents]
    scores = scores_of_tags(gold, predicted, "bios").as_dict()
    return {"loss": 0.5, **scores, **asdict(analyse(documents, known_names=frozenset({"Anna Lee"})))}


def write_split(run: Path, name: str, documents: Sequence[ScoredDocument]) -> None:
    """Replace the results and documents of ``eval`` or ``test`` in a run folder."""
    (run / f"{name}_results.json").write_text(json.dumps(results_of(documents)), "utf-8")
    write_documents(run / f"{name}_documents.jsonl", documents)
