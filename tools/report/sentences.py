"""Documents as the list in the page takes them: text, places in it, and what is right or wrong there."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from processors.examples import join_words
from processors.tag_schemes import Entity
from tools.scores.documents import ScoredDocument
from tools.scores.pairs import KINDS, pair_entities

Row = list[Any]


def sentence_rows(documents: Sequence[ScoredDocument], types: Sequence[str]) -> list[Row]:
    """A row a document: its id, its text, and its pairs of entities.

    A pair is its kind (a number into `tools.scores.pairs.KINDS`), the gold and the predicted entity as
    ``[type, start, end]`` with 0 for none, and the confidence, if there is one. Types are numbers into ``types``,
    places count UTF-16 units of the text, as JavaScript does.
    """
    numbers = {name: index for index, name in enumerate(types)}
    return [_row(document, numbers) for document in documents]


def _row(document: ScoredDocument, types: dict[str, int]) -> Row:
    text, offsets = join_words(document.words)
    wide = [position for position, character in enumerate(text) if ord(character) > 0xFFFF]
    sureness = dict(zip(document.predicted, document.confidences, strict=False))

    def place(entity: Entity | None) -> Row | int:
        if entity is None:
            return 0
        start, end = offsets[entity.start][0], offsets[entity.end - 1][1]
        return [types[entity.type], start + bisect_right(wide, start - 1), end + bisect_right(wide, end - 1)]

    pairs = []
    for pair in pair_entities(document.gold, document.predicted):
        confidence = sureness.get(pair.predicted) if pair.predicted else None
        sure = [] if confidence is None else [round(confidence, 3)]
        pairs.append([KINDS.index(pair.kind), place(pair.gold), place(pair.predicted), *sure])
    return [document.guid, text, sorted(pairs, key=lambda pair: min(place[1] for place in pair[1:3] if place))]
