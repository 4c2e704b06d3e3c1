"""The names that train has."""

from pathlib import Path

from analysis.documents import training_names
from processors.corpus import Corpus


def test_names_are_those_of_train_alone(corpus_dir: Path) -> None:
    (corpus_dir / "train.txt").write_text("dan B-PER\nlee I-PER\nleft O\n\nrome B-LOC\n", "utf-8")
    assert training_names(Corpus("tiny", corpus_dir)) == frozenset({"dan lee", "rome"})
    (corpus_dir / "train.txt").write_text("oslo B-LOC\n", "utf-8")
    assert training_names(Corpus("tiny", corpus_dir)) == frozenset({"oslo"})  # another file


def test_without_train_there_are_none(corpus_dir: Path) -> None:
    (corpus_dir / "train.txt").unlink()
    assert training_names(Corpus("tiny", corpus_dir)) is None
