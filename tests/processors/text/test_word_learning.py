"""The words of a corpus, learnt from it and found again in its raw text."""

from pathlib import Path

import pytest

from processors.corpus import Corpus
from processors.examples import Example
from processors.text.word_cutting import WordCutter, as_written, learn_cutter, shares_cut_alike
from tests.helpers import ROOT

_READING = WordCutter("auto")


def sentences(*texts: str) -> list[Example]:
    """Sentences of words that stand between spaces."""
    return [Example(f"train-{number}", text.split(" ")) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "unit", "kept"),
    [
        (["他 叫 李 明 。", "她 来 了"], "char", ()),
        (["Selegiline - induced .", "Parkinson ' s 0 . 5"], "word", ()),
        (["he 's 7.5 , no", "a well-known win"], "token", ()),
        (["他 叫 1 5 a", "Parkinson ' s"], "auto", ()),
        (["他 叫 1 5 a", "well-known J. Lee"], "auto_token", ()),
        (["我 爱 iPhone 15", "well-known J. Lee"], "mixed", ()),
        (["Mrs. Lee", "Mrs. Fox met Mr. Fox"], "word", ("Mrs.",)),  # one "Mr." is too few
        (["about etc. now", "etc. it", "etc .", "etc .", "etc ."], "word", ()),  # more often apart
        (["in the U.S.-led force", "a U.S.-led war", "the U.S. is"], "token", ("U.S.-led",)),
        (["kept : Yahoo! now", "it is Yahoo! now", "7-8"], "token", ("Yahoo!",)),
    ],
)
def test_the_unit_and_the_kept_words_are_those_of_the_corpus(texts: list[str], unit: str, kept: tuple[str]) -> None:
    assert learn_cutter(sentences(*texts), _READING).cutter == WordCutter(unit, kept)


def test_a_unit_that_is_asked_for_is_taken() -> None:
    cutter, share, _ = learn_cutter(sentences("a well-known Mrs. Lee", "Mrs. Fox"), _READING, ["word"])
    assert cutter == WordCutter("word", ("Mrs.",))
    assert share == 0.5


def test_text_that_was_cut_here_is_cut_so_again() -> None:
    text = "我 saw 5.5"
    words, offsets = _READING.split(text)
    example = Example("x", words, None, text, offsets, words_given=False)
    assert learn_cutter([example], _READING) == (_READING, 1.0, 1.0)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("Yes , he ( Bob ) did n't .", "Yes, he (Bob) didn't."),
        ("Bob 's cat : a [ b ] !", "Bob's cat: a [b]!"),
        ("- a ' quoted ' word", "- a' quoted' word"),  # which quote opens is not known
        (". a", ". a"),
    ],
)
def test_punctuation_is_attached_to_words(words: str, text: str) -> None:
    example = Example("x", words.split(" "), None, *_joined(words))
    written, offsets = as_written(example)
    assert written == text
    assert [written[start:end] for start, end in offsets] == example.words


def _joined(words: str) -> tuple[str, list[tuple[int, int]]]:
    text, offsets, start = words, [], 0
    for word in words.split(" "):
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return text, offsets


def shares(corpus: Corpus) -> tuple[float, float]:
    return shares_cut_alike(corpus.learned_cutter().cutter, list(corpus.examples("test")))


def test_the_sample_is_cut_as_it_has_its_words() -> None:
    corpus = Corpus("sample", ROOT / "datasets" / "sample")
    assert {"Mrs.", "Inc."} <= set(corpus.learned_cutter().cutter.kept)
    assert shares(corpus) == (1.0, 1.0)


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("name", "least"), [("cner", 1.0), ("conll2003", 0.98), ("bio/NCBI-disease-IOB", 1.0), ("bio/BC5CDR-IOB", 1.0)]
)
def test_corpora_are_cut_as_they_have_their_words(data_root: Path, name: str, least: float) -> None:
    assert min(shares(Corpus(name, data_root / name))) >= least
