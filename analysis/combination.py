"""What several sources say of texts, combined into one annotation, which is partial where they leave doubt."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from analysis.source_reliability import Estimate, Items, Rates, estimate
from common.entities import Annotation, Entity, disjoint, in_text_order
from processors.examples import Example
from processors.layers import LayeredText


@dataclass(frozen=True)
class Combined:
    """The texts and what is estimated of their sources.

    Args:
        names, types: of the sources, and of the entities.
        of_text: the items of each text.
    """

    texts: Sequence[LayeredText]
    names: Sequence[str]
    types: Sequence[str]
    items: Items
    found: Estimate
    of_text: Sequence[range]

    def recall(self, name: str, kind: str) -> float:
        """Share of the entities of a type that a source has."""
        place = self.types.index(kind) + 1
        return float(self.found.confusion[self.names.index(name), place, place])


def combine(
    texts: Sequence[LayeredText], reliability: Mapping[str, Rates] | None = None, nested: bool = False
) -> Combined:
    """Estimate the reliability of the sources of texts, and which of their entities are right.

    Args:
        reliability: of sources whose reliability is not estimated.
        nested: whether entities may overlap.
    """
    names = sorted({name for text in texts for name in text.layers})
    annotations = [one for text in texts for one in (text.example.annotation, *text.layers.values())]
    types = sorted(
        {one.type for annotation in annotations for one in annotation.entities or ()}
        | {name for annotation in annotations for name in annotation.complete or ()}
    )
    classes = {name: number for number, name in enumerate(types, start=1)}
    spans: list[tuple[int, int, int]] = []
    votes: list[NDArray[np.bool_]] = []
    possible: list[NDArray[np.bool_]] = []
    places: Counter[tuple[bytes, bytes]] = Counter()
    of_text: list[range] = []
    for number, text in enumerate(tqdm(texts, desc="Comparing sources", unit=" texts", leave=False, disable=None)):
        gold, words = text.example.annotation, len(text.example.words)
        layers = [text.layers.get(name) for name in names]
        every = {one[1:] for layer in (gold, *layers) for one in (layer.entities or () if layer else ())}
        candidates = sorted(every, key=lambda words: (words[1], words[0]))
        of_text.append(range(len(spans), len(spans) + len(candidates)))
        spans += [(number, *words) for words in candidates]
        of_layers = [_votes(layer, candidates, classes, nested) for layer in layers]
        votes.extend(np.stack([rows[:-1] for rows in of_layers], 1))
        possible.extend(_possible(gold, candidates, classes))
        if gold.is_partial:
            continue  # nothing is missed there as far as anybody knows
        covered = {word for first, last in candidates for word in range(first, last + 1)}
        nowhere = np.array([True, *[gold.entities is None] * len(types)])
        places[np.stack([rows[-1] for rows in of_layers]).tobytes(), nowhere.tobytes()] += words - len(covered)
    shape, places = (len(names), len(types) + 2), +places
    votes += [np.frombuffer(said, bool).reshape(shape) for said, _ in places]
    possible += [np.frombuffer(may_be, bool) for _, may_be in places]
    items = Items(
        np.array(votes, bool).reshape(-1, *shape),
        np.array(possible, bool).reshape(-1, len(types) + 1),
        np.array([1.0] * len(spans) + list(places.values())),
        spans,
        nested,
    )
    known = {names.index(name): rates for name, rates in (reliability or {}).items()}
    return Combined(texts, names, types, items, estimate(items, known), of_text)


def _votes(
    layer: Annotation | None, candidates: Sequence[tuple[int, int]], classes: Mapping[str, int], nested: bool
) -> NDArray[np.bool_]:
    """(N + 1, C + 1): the classes one of which a source says of each candidate, and last of a word without one."""
    rows = np.ones((len(candidates) + 1, len(classes) + 2), bool)
    if layer is None or layer.entities is None:
        return rows
    rows[:] = False
    rows[:, [0, *(classes[name] for name in layer.open_types(classes))]] = True
    unknown, covered = np.zeros((2, layer.words + 1), bool)
    for first, last in layer.unannotated:
        unknown[first : last + 1] = True
    for _, first, last in layer.entities:
        covered[first : last + 1] = True
    said: dict[tuple[int, int], list[int]] = {}
    for entity in layer.entities:
        said.setdefault(entity[1:], []).append(classes[entity.type])
    for place, (first, last) in enumerate(candidates):
        if (first, last) in said:
            rows[place] = False
            rows[place, said[first, last]] = True
        elif unknown[first : last + 1].any():
            rows[place] = True
        elif covered[first : last + 1].any() and not nested:
            rows[place, [0, -1]] = False, True
    return rows


def _possible(
    gold: Annotation, candidates: Sequence[tuple[int, int]], classes: Mapping[str, int]
) -> Iterator[NDArray[np.bool_]]:
    """(C,) for each candidate: the classes that the gold annotation permits."""
    if gold.entities is None:
        yield from np.ones((len(candidates), len(classes) + 1), bool)
        return
    judged = set(gold.judged(Entity(name, *words) for words in candidates for name in classes))
    entities = set(gold.entities)
    for words in candidates:
        here = [Entity(name, *words) for name in classes]
        right = [one in entities for one in here]
        yield np.array([False, *right] if any(right) else [True, *(one not in judged for one in here)])


def decided(combined: Combined, threshold: float, max_missed: float) -> Iterator[Example]:
    """Yield the texts that anybody looked at with the entities that are probable enough.

    Args:
        threshold: least probability of an entity, and of a word that is in none; other words are not annotated.
        max_missed: a type of which the sources of a text probably miss a larger share is not complete.
    """
    for text, items in zip(combined.texts, combined.of_text, strict=True):
        example = text.example
        looked = [one for one in (example.annotation, *text.layers.values()) if one.entities is not None]
        if not looked:
            continue
        size = len(example.words)
        outside, unseen = np.ones(size), np.ones(size, bool)
        accepted: list[tuple[float, Entity]] = []
        for item in items:
            _, first, last = combined.items.spans[item]
            none, *of_types = combined.found.posteriors[item].tolist()
            within = outside[first : last + 1]
            outside[first : last + 1] = within * none if combined.items.nested else within - (1 - none)
            pairs = zip(of_types, combined.types, strict=True)
            accepted += [(value, Entity(name, first, last)) for value, name in pairs if value >= threshold]
        by_probability = [entity for _, entity in sorted(accepted, key=lambda one: -one[0])]
        entities = by_probability if combined.items.nested else disjoint(by_probability)
        for one in looked:
            seen = np.ones(size, bool)
            for first, last in one.unannotated:
                seen[first : last + 1] = False
            unseen &= ~seen
        complete = _complete_types(combined, text, max_missed)
        entities = in_text_order([*(example.entities or ()), *entities])
        made = replace(example, entities=entities, unannotated=[], confidences=None)
        made.complete = None if len(complete) == len(combined.types) else complete
        made.set_unannotated(np.flatnonzero(unseen | (outside < threshold)).tolist())
        yield made


def _complete_types(combined: Combined, text: LayeredText, max_missed: float) -> frozenset[str]:
    """The types of which the sources of a text together miss at most a share of the entities.

    Sources that did not look at some of its words count only if there are no others.
    """
    annotations = {"": text.example.annotation, **text.layers}  # gold misses nothing
    looked = {name: one for name, one in annotations.items() if one.entities is not None}
    whole = {name: one for name, one in looked.items() if not one.unannotated} or looked
    missed = dict.fromkeys(combined.types, 1.0)
    for name, annotation in whole.items():
        for kind in set(missed).difference(annotation.open_types(missed)):
            missed[kind] *= 1 - combined.recall(name, kind) if name else 0.0
    return frozenset(kind for kind, share in missed.items() if share <= max_missed)
