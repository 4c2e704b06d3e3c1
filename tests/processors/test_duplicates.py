"""Sentences that stand twice."""

from dataclasses import replace
from pathlib import Path

from processors.corpus import Corpus, repeated_sentences, sentences_of_train


def corpus_of(folder: Path, **sentences: list[str]) -> Corpus:
    folder.mkdir()
    for split, lines in sentences.items():
        blocks = ("\n".join(f"{word} O" for word in line.split()) for line in lines)
        (folder / f"{split}.txt").write_text("\n\n".join(blocks) + "\n", "utf-8")
    return Corpus("tiny", folder, cache_dir=folder / "cache")


def test_repetitions_are_counted(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "a", train=["a b", "c", "a b", "a b", "c d"], dev=["c", "a", "c", "b a"])
    for _ in range(2):  # the second time from the cache
        assert repeated_sentences(corpus, "train") == 2
        assert sentences_of_train(corpus, "dev") == 2
    assert len(list((tmp_path / "a" / "cache").iterdir())) == 2


def test_words_are_compared_and_not_their_letters(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "a", train=["ab c"], dev=["a bc", "abc", "ab c"])
    assert sentences_of_train(corpus, "dev") == 1


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "a", train=["a b"], dev=["a b"])
    assert sentences_of_train(corpus, "dev") == 1
    (tmp_path / "a" / "dev.txt").write_text("a O\n", "utf-8")
    assert sentences_of_train(replace(corpus), "dev") == 0  # as another run reads it


def test_nothing_is_kept_without_a_cache(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "a", train=["a", "a"], dev=["a"])
    corpus.cache_dir = None
    assert repeated_sentences(corpus, "train") == sentences_of_train(corpus, "dev") == 1
