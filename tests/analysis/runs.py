"""Scored runs as their folders hold them."""

import random
from pathlib import Path

from analysis.documents import ScoredDocument, write_documents
from common.entities import Entity


def write_run(
    folder: Path, accuracy: float, seed: int, documents: int = 200, name: str = "eval_documents.jsonl"
) -> Path:
    """A run that finds so large a share of the entities of the same documents."""
    corpus, finder = random.Random(0), random.Random(f"{accuracy} {seed}")
    scored = []
    for number in range(documents):
        words = [f"w{corpus.randrange(50)}" for _ in range(20)]
        gold = [Entity("X", start, start) for start in range(0, 20, corpus.randrange(2, 8))]
        scored.append(ScoredDocument(str(number), words, gold, [one for one in gold if finder.random() < accuracy]))
    folder.mkdir(parents=True)
    write_documents(folder / name, scored)
    return folder
