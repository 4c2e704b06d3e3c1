"""Texts that say almost the same."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise


class NearDuplicates:
    """Texts, among which those similar to another one are found.

    The similarity of two texts is the share of their words and pairs of neighbouring words that both have (Jaccard
    index of the two sets); capital letters make no difference.

    Args:
        most: texts at least as similar are near-duplicates, from 0 to 1.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._sizes: list[int] = []
        self._texts_with: dict[str | tuple[str, str], list[int]] = {}

    def add(self, words: Sequence[str]) -> None:
        """Add a text."""
        parts = _parts(words)
        for part in parts:
            self._texts_with.setdefault(part, []).append(len(self._sizes))
        self._sizes.append(len(parts))

    def has_similar(self, words: Sequence[str]) -> bool:
        """Whether a near-duplicate of this text was added."""
        parts = _parts(words)
        common = Counter(text for part in parts for text in self._texts_with.get(part, ()))
        return any(count >= self._most * (len(parts) + self._sizes[text] - count) for text, count in common.items())


def _parts(words: Sequence[str]) -> set[str | tuple[str, str]]:
    lowered = [word.lower() for word in words]
    return {*lowered, *pairwise(lowered)}
