"""The entity names that the training split annotates."""

from collections.abc import Iterable

from processors.corpus import Corpus
from processors.examples import Example
from processors.tag_schemes import tags_to_entities

_read: dict[str, frozenset[str]] = {}


def training_names(corpus: Corpus) -> frozenset[str] | None:
    """Surfaces of the entities of train, read once a process; ``None`` where the corpus has no train split."""
    if not corpus.has("train"):
        return None
    digest = corpus.digest("train")
    if digest not in _read:
        _read[digest] = frozenset(entity_surfaces(corpus.examples("train")))
    return _read[digest]


def entity_surfaces(examples: Iterable[Example]) -> Iterable[str]:
    """As `tools.scores.documents.ScoredDocument.surface` writes them."""
    for example in examples:
        for entity in tags_to_entities(example.labels or []):
            yield " ".join(example.words[entity.start : entity.end])
