"""Conversion of tags to entities, and detection of the tag scheme of a file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.entities import Entity
from common.tag_schemes import (
    OUTSIDE,
    SCHEMES,
    MixedSchemesError,
    TagScheme,
    detect_scheme,
    split_tag,
    tag_pairs,
    tags_to_entities,
)
from processors.examples import DataError


@dataclass
class TagReader:
    """Reads the tags of one file, in any scheme, as ``conlleval`` does.

    Args:
        plain: whether the tags are classes of single words, such as parts of speech; then each word is an entity.
        transitions: number of occurrences of each pair of adjacent tags.
        first_lines: line on which each pair first occurs.
    """

    plain: bool = False
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_lines: dict[tuple[str, str], int] = field(default_factory=dict)

    def entities(self, tags: Sequence[str], lines: Sequence[int]) -> list[Entity]:
        """Read the entities of a sentence.

        Args:
            tags: tags of the words.
            lines: lines of the words, or one line for all.
        """
        if self.plain:
            return [Entity(tag, word, word) for word, tag in enumerate(tags)]
        pairs = list(tag_pairs(tags))
        self.transitions.update(pairs)
        for pair in set(pairs) - self.first_lines.keys():
            self.first_lines[pair] = lines[min(pairs.index(pair), len(lines) - 1)]
        return tags_to_entities(tags)

    def scheme(self, source: str) -> TagScheme | None:
        """Detect the scheme of all tags read so far; ``None`` if there are none.

        Raises:
            DataError: no scheme has all the prefixes.
        """
        if not self.transitions:
            return None
        try:
            return detect_scheme(self.transitions)
        except MixedSchemesError as error:
            last_first = sorted(self.first_lines.items(), key=lambda item: -item[1])
            lines = {split_tag(tag)[0]: line for (_, tag), line in last_first}
            places = ", ".join(f"{prefix} first on line {lines[prefix]}" for prefix in sorted(lines.keys() - {OUTSIDE}))
            known = "; ".join(f"{name}: {'/'.join(scheme.prefixes)}" for name, scheme in SCHEMES.items())
            raise DataError(f"{error} ({places}); convert the file to one of {known}", source) from None

    def illegal(self, scheme: TagScheme) -> tuple[int, int]:
        """Number of transitions that the scheme does not allow, and the first line with one; 0 and 0 without any."""
        found = [pair for pair in self.transitions if not scheme.allows(*pair)]
        lines = (self.first_lines[pair] for pair in found)
        return sum(self.transitions[pair] for pair in found), min(lines, default=0)
