"""The feature cache: its key, its files, and what crashes and other processes may do to it."""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.entities import Entity
from processors.corpus import Corpus
from processors.examples import DataError, Example
from processors.features import cache as feature_cache
from processors.features.build import FeatureSpec, build_feature_arrays
from processors.features.cache import open_or_build_features
from processors.features.dataset import FeatureArrays, FeatureDataset
from processors.features.windows import SequenceLayout, layout_of_tokenizer
from processors.formats.writers import FORMATS

ROUNDS = 20


def spec_for(tokenizer: PreTrainedTokenizerBase) -> FeatureSpec:
    return FeatureSpec(24, 4, layout_of_tokenizer(tokenizer))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def corpus(corpus_dir: Path) -> Corpus:
    return Corpus("tiny", corpus_dir)


@pytest.fixture
def own_bert(encoder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer that a test may change."""
    return AutoTokenizer.from_pretrained(encoder)


Open = Callable[..., FeatureDataset]


@pytest.fixture
def open_features(corpus: Corpus, bert: PreTrainedTokenizerBase, cache: Path) -> Open:
    """Opens the tiny corpus's training features; keywords change one thing."""

    def opened(split: str = "train", **changed: Any) -> FeatureDataset:
        tokenizer = changed.pop("tokenizer", bert)
        spec = changed.pop("spec", spec_for(bert))
        return open_or_build_features(changed.pop("corpus", corpus), split, spec, tokenizer, cache, **changed)

    return opened


def entries(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} if cache.exists() else set()


def in_memory(arrays: FeatureArrays) -> FeatureArrays:
    return FeatureArrays({name: array.copy() for name, array in arrays.items()})


def same_arrays(left: FeatureArrays, right: FeatureArrays) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_the_cache_holds_the_features_of_the_split(
    open_features: Open, corpus: Corpus, bert: PreTrainedTokenizerBase, cache: Path
) -> None:
    expected = build_feature_arrays(list(corpus.examples("train")), spec_for(bert), bert, ["LOC", "ORG", "PER"])
    assert same_arrays(open_features().arrays, expected)
    (entry,) = entries(cache)
    assert entry.startswith("train-")


def test_arrays_are_mapped_not_read(open_features: Open) -> None:
    arrays = open_features().arrays
    stored = [
        array for name, array in arrays.items() if name not in ("casings", "sources", "unannotated")
    ]  # which are empty
    assert all(isinstance(owner(array), np.memmap) for array in stored)


def owner(array: Any) -> Any:
    """The array whose memory this one shows."""
    return owner(array.base) if isinstance(array.base, np.ndarray) else array


def test_the_second_call_opens_what_the_first_built(open_features: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_features().arrays
    monkeypatch.setattr(feature_cache, "build_feature_arrays", None)
    assert same_arrays(open_features().arrays, first)


def test_a_moved_corpus_has_the_same_key(open_features: Open, corpus_dir: Path, cache: Path, tmp_path: Path) -> None:
    open_features()
    before = entries(cache)
    moved = shutil.copytree(corpus_dir, tmp_path / "moved")
    open_features(corpus=Corpus("other", moved))
    assert entries(cache) == before


def test_another_copy_of_the_tokenizer_has_the_same_key(
    open_features: Open, own_bert: PreTrainedTokenizerBase, cache: Path
) -> None:
    open_features()
    before = entries(cache)
    open_features(tokenizer=own_bert)
    assert entries(cache) == before


def test_calls_of_the_tokenizer_do_not_change_the_key(
    open_features: Open, own_bert: PreTrainedTokenizerBase, cache: Path
) -> None:
    open_features()
    before = entries(cache)
    own_bert("anna left", truncation=True, max_length=3, padding="max_length")
    open_features(tokenizer=own_bert)
    assert entries(cache) == before


def test_a_slow_tokenizer_has_a_key_of_its_own_that_stays(
    open_features: Open, slow_bert: PreTrainedTokenizerBase, cache: Path
) -> None:
    open_features()
    first = open_features(tokenizer=slow_bert)
    assert len(entries(cache)) == 2
    assert same_arrays(open_features(tokenizer=slow_bert).arrays, first.arrays)
    assert len(entries(cache)) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"max_seq_length": 23},
        {"window_overlap": 3},
        {"layout": SequenceLayout((), (), (), ())},
    ],
    ids=["length", "overlap", "layout"],
)
def test_the_key_changes_with_the_spec(
    open_features: Open, bert: PreTrainedTokenizerBase, cache: Path, changed: dict[str, Any]
) -> None:
    open_features()
    open_features(spec=replace(spec_for(bert), **changed))
    assert len(entries(cache)) == 2


def test_the_key_changes_with_the_tokenizer(
    open_features: Open, own_bert: PreTrainedTokenizerBase, cache: Path
) -> None:
    open_features()
    own_bert.add_tokens([AddedToken("big co")])
    open_features(tokenizer=own_bert)
    assert len(entries(cache)) == 2


@pytest.mark.parametrize(("old", "new"), [("anna", "anne"), ("-PER", "-ORG")], ids=["words", "labels"])
def test_the_key_changes_with_the_content(
    open_features: Open, corpus_dir: Path, cache: Path, old: str, new: str
) -> None:
    before = open_features()
    file = corpus_dir / "train.txt"
    file.write_text(file.read_text().replace(old, new))
    after = open_features(corpus=Corpus("tiny", corpus_dir))
    assert len(entries(cache)) == 2
    assert not same_arrays(before.arrays, after.arrays)


def test_splits_have_entries_of_their_own(open_features: Open, corpus_dir: Path, cache: Path) -> None:
    shutil.copy(corpus_dir / "train.txt", corpus_dir / "dev.txt")
    assert open_features("train").document(0).guid == "train-0"
    assert open_features("dev").document(0).guid == "dev-0"
    assert len(entries(cache)) == 2


def test_overwriting_builds_anew(open_features: Open, cache: Path) -> None:
    before = open_features()
    (entry,) = cache.iterdir()
    (entry / "input_ids.bin").write_bytes(b"")
    after = open_features(overwrite=True)
    assert len(after.arrays["input_ids"]) > 0
    assert after.num_words == before.num_words
    assert {path.name for path in cache.iterdir()} == {entry.name}


class CrashingCorpus(Corpus):
    """Breaks off after 30 sentences."""

    def examples(self, split: str) -> Iterator[Example]:
        for number, example in enumerate(super().examples(split)):
            if number == 30:
                raise KeyboardInterrupt
            yield example


def test_a_crash_leaves_nothing(
    open_features: Open, corpus_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "_CHUNK", 10)
    with pytest.raises(KeyboardInterrupt):
        open_features(corpus=CrashingCorpus("tiny", corpus_dir))
    assert entries(cache) == set()
    assert open_features().num_documents == 60


def test_a_crash_while_overwriting_leaves_the_old_entry(
    open_features: Open, corpus_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_memory(open_features().arrays)
    monkeypatch.setattr(feature_cache, "_CHUNK", 10)
    with pytest.raises(KeyboardInterrupt):
        open_features(corpus=CrashingCorpus("tiny", corpus_dir), overwrite=True)
    monkeypatch.setattr(feature_cache, "build_feature_arrays", None)
    assert same_arrays(open_features().arrays, before)


def test_what_a_killed_builder_left_is_ignored(open_features: Open, cache: Path) -> None:
    expected = in_memory(open_features().arrays)
    (entry,) = cache.iterdir()
    left = cache / f".{entry.name}-killed"
    entry.rename(left)
    (left / "input_ids.bin").write_bytes(b"half")
    assert same_arrays(open_features().arrays, expected)
    assert (left / "input_ids.bin").read_bytes() == b"half"


def test_features_of_other_words_than_the_split_are_refused(open_features: Open, cache: Path) -> None:
    open_features()
    (entry,) = cache.iterdir()
    for name, size in {"entities": 12, "document_words": 4}.items():
        array = entry / f"{name}.bin"
        array.write_bytes(array.read_bytes()[:-size])
        with pytest.raises(RuntimeError, match=r"train\.txt has \d+ words .* in 60 sentences.*--overwrite_cache"):
            open_features()


def test_a_malformed_split_is_refused_and_leaves_nothing(open_features: Open, corpus_dir: Path, cache: Path) -> None:
    (corpus_dir / "train.txt").write_text("anna B-PER\nleft\n")
    with pytest.raises(DataError, match=r"train\.txt:2: 1 columns"):
        open_features(corpus=Corpus("tiny", corpus_dir))
    assert entries(cache) == set()


class SlowCorpus(Corpus):
    """While it is read for its features, another process builds the same entry."""

    meanwhile: Callable[[], object]

    def examples(self, split: str) -> Iterator[Example]:
        yield from super().examples(split)
        self.meanwhile()


def test_the_entry_of_a_faster_process_stays(open_features: Open, corpus_dir: Path, cache: Path) -> None:
    faster: list[int] = []

    def meanwhile() -> None:
        open_features()
        faster.extend(path.stat().st_ino for path in cache.glob("train-*"))

    slow = SlowCorpus("tiny", corpus_dir)
    slow.meanwhile = meanwhile
    open_features(corpus=slow)
    assert [path.stat().st_ino for path in cache.iterdir()] == faster


def build_again_and_again(
    corpus_dir: Path, encoder: Path, cache: Path, start: Barrier, results: "Queue[tuple[int, int] | str]"
) -> None:
    """Builds one entry after the other, each at the same moment as another process."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    for number in range(ROUNDS):
        folder = cache / str(number)
        corpus = Corpus("tiny", corpus_dir, cache_dir=folder)
        start.wait(60)
        try:
            dataset = open_or_build_features(corpus, "train", spec_for(tokenizer), tokenizer, folder)
            results.put((dataset.num_documents, int(dataset[len(dataset) - 1].input_ids[0])))
        except Exception as error:
            results.put(f"{type(error).__name__}: {error}")


def test_two_processes_that_build_at_once_both_succeed(
    corpus_dir: Path, encoder: Path, cache: Path, bert: PreTrainedTokenizerBase
) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    arguments = (corpus_dir, encoder, cache, start, results)
    builders = [context.Process(target=build_again_and_again, args=arguments) for _ in range(2)]
    for builder in builders:
        builder.start()
    found = [results.get(timeout=120) for _ in range(2 * ROUNDS)]
    for builder in builders:
        builder.join()
    assert found == [(60, bert.cls_token_id)] * 2 * ROUNDS
    kept = [path.name.partition("-")[0] for folder in cache.iterdir() for path in folder.iterdir()]
    assert sorted(kept) == ["parsed"] * ROUNDS + ["train"] * ROUNDS


def test_many_processes_give_the_features_of_one(
    open_features: Open, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "_CHUNK", 7)
    expected = in_memory(open_features().arrays)
    monkeypatch.setattr(feature_cache, "_SENTENCES_WORTH_A_POOL", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(feature_cache, "build_feature_arrays", None)
    assert same_arrays(open_features(overwrite=True).arrays, expected)


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"conll"}))
def test_nested_entities_survive_writing_reading_and_the_cache(open_features: Open, tmp_path: Path, name: str) -> None:
    nested = [Entity("ORG", 0, 2), Entity("LOC", 0, 0), Entity("PER", 1, 3), Entity("LOC", 2, 2), Entity("ORG", 2, 2)]
    other = Example("b", ["in", "rome"], [Entity("LOC", 1, 1)])
    examples = [Example("a", ["bank", "of", "new", "york"], nested), other]
    FORMATS[name].write(examples, tmp_path / f"train{FORMATS[name].suffix}")
    corpus = Corpus("", tmp_path, word_unit="word", span_edges="error")
    assert (corpus.inventory("train").entities, corpus.inventory("train").nested_entities) == (6, 4)
    dataset = open_features(corpus=corpus)
    assert [dataset.annotation(document).entities for document in range(2)] == [one.entities for one in examples]
    again = [
        Example(one.guid, one.words, list(one.annotation.entities or []), one.text, one.offsets.tolist())
        for one in map(dataset.document, range(2))
    ]
    FORMATS[name].write(again, tmp_path / f"dev{FORMATS[name].suffix}")
    assert [one.entities for one in corpus.examples("dev")] == [one.entities for one in examples]


def test_a_document_of_20000_characters_is_cached_whole(open_features: Open, tmp_path: Path) -> None:
    characters = "abcde" * 4000
    lines = [f"{character} {'B-PER' if character == 'a' else 'O'}" for character in characters]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    dataset = open_features(corpus=Corpus("long", tmp_path))
    assert (dataset.num_documents, dataset.num_words) == (1, 20_000)
    assert dataset.document(0).text == characters
    assert len(dataset.annotation(0).entities or []) == 4000
    assert dataset.word_counts.sum() == 20_000
    assert dataset.lengths.max() <= 24
