"""Encoding of annotations as ids of flat tags, the targets of word-tagging heads."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from common.entities import Annotation, Entity, outermost
from common.tag_schemes import OUTSIDE, TagScheme, entities_to_tags

IGNORED_LABEL = -100
_TAGS_DEPEND_ON_NEIGHBOURS = ("IOB1", "IOE1")


class TagEncoder:
    """Encodes annotations as label ids; of overlapping entities only the outermost.

    Args:
        tags: all tags, in the order of their ids.
        scheme: the scheme of the tags.
        unknown: id for tags that are not in ``tags``; by default such a tag is an error.
    """

    def __init__(self, tags: Sequence[str], scheme: TagScheme, unknown: int | None = None) -> None:
        self.tags, self.scheme, self._unknown = list(tags), scheme, unknown
        self._ids = {tag: index for index, tag in enumerate(self.tags)}
        self._known: dict[tuple[str, int], tuple[int, int, int]] = {}

    def __call__(self, annotations: Sequence[Annotation]) -> torch.Tensor:
        """Encode annotations as label ids ``(B, W)``, with -100 for padding and unannotated words.

        Raises:
            ValueError: a tag is not among the labels.
        """
        W = max(1, max(annotation.words for annotation in annotations))
        labels = np.full((len(annotations), W), IGNORED_LABEL, np.int64)  # (B, W)
        for row, annotation in zip(labels, annotations, strict=True):
            entities = annotation.entities
            if entities is None:
                continue
            if any(after.first_word <= before.last_word for before, after in pairwise(entities)):
                entities = outermost(entities)
            if self.scheme.name in _TAGS_DEPEND_ON_NEIGHBOURS:
                tags = entities_to_tags(entities, annotation.words, self.scheme)
                row[: annotation.words] = [self._id(tag) for tag in tags]
            else:
                row[: annotation.words] = self._id(OUTSIDE)
                for entity_type, first, last in entities:
                    row[first], inside, row[last] = self._entity_ids(entity_type, last - first + 1)
                    if last - first > 1:
                        row[first + 1 : last] = inside
            for first, last in annotation.unannotated:
                row[first : last + 1] = IGNORED_LABEL
        return torch.from_numpy(labels)

    def _entity_ids(self, entity_type: str, words: int) -> tuple[int, int, int]:
        """Label ids of the first, inner and last words of an entity; all equal for a single word."""
        key = (entity_type, min(words, 3))
        if key not in self._known:
            tags = entities_to_tags([Entity(entity_type, 0, key[1] - 1)], key[1], self.scheme)
            self._known[key] = self._id(tags[0]), self._id(tags[len(tags) // 2]), self._id(tags[-1])
        return self._known[key]

    def _id(self, tag: str) -> int:
        found = self._ids.get(tag, self._unknown)
        if found is None:
            raise ValueError(f"label {tag!r} is not among the labels {', '.join(self.tags)}")
        return found
