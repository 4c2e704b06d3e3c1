"""Sentences that stand twice in a corpus: within a split, or in train and in what is scored."""

import hashlib

from processors.atomic import write_atomically
from processors.corpus import Corpus


def repeated_sentences(corpus: Corpus, split: str) -> int:
    """How many sentences of a split stand earlier in it."""
    hashes = _sentence_hashes(corpus, split)
    return len(hashes) - len(set(hashes))


def sentences_of_train(corpus: Corpus, split: str) -> int:
    """How many sentences of another split stand in train too."""
    known = set(_sentence_hashes(corpus, "train"))
    return sum(sentence in known for sentence in _sentence_hashes(corpus, split))


def _sentence_hashes(corpus: Corpus, split: str) -> list[str]:
    """A hash of the words of each sentence that has any, kept beside the counts of the corpus."""
    path = corpus.cache_dir and corpus.cache_dir / f"sentences-{corpus.digest(split)}.txt"
    if path and path.is_file():
        return path.read_text("utf-8").split()
    hashes = [_hash(example.words) for example in corpus.examples(split) if example.words]
    if path:
        write_atomically(path, "\n".join(hashes))
    return hashes


def _hash(words: list[str]) -> str:
    return hashlib.blake2b("\n".join(words).encode(), digest_size=8).hexdigest()
