"""Windows that show the neighbouring sentences of the same document, and epochs that leave some of them out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from common.entities import Entity
from processors.corpus import Corpus
from processors.examples import Example
from processors.features import cache
from processors.features.batching import BucketBatchSampler, StepFeed
from processors.features.build import FeatureSpec, build_feature_arrays
from processors.features.cache import open_or_build_features
from processors.features.dataset import FeatureDataset
from processors.features.windows import layout_of_tokenizer

WORDS = ["anna", "met", "bob", "in", "rome", "yesterdayish"]


def dataset_of(
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    length: int = 64,
    context: int | None = 0,
    overlap: int = 2,
    casing: tuple[int, ...] = (),
) -> FeatureDataset:
    spec = FeatureSpec(length, overlap, layout_of_tokenizer(tokenizer, "", casing), context)
    return FeatureDataset(build_feature_arrays(examples, spec, tokenizer, ["X"]), spec.layout, ["X"])


def sentences(*documents: list[str]) -> list[Example]:
    """Documents of sentences, each with an entity at its first word."""
    return [
        Example(f"{number}-{place}", text.split(), [Entity("X", 0, 0)] if text else [], document=f"doc {number}")
        for number, document in enumerate(documents)
        for place, text in enumerate(document)
    ]


def shown(dataset: FeatureDataset, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [" ".join(tokenizer.convert_ids_to_tokens(one.input_ids.tolist())) for one in dataset]


def test_neighbours_of_the_same_document_stand_around_a_sentence(bert: PreTrainedTokenizerBase) -> None:
    dataset = dataset_of(bert, sentences(["anna met bob", "", "the man", "he left"], ["big co"]))
    assert shown(dataset, bert) == [
        *["[CLS] anna met bob [SEP] the man [SEP] he left [SEP]"] * 3,
        "[CLS] big co [SEP]",
    ]
    assert [one.word_positions.tolist() for one in dataset] == [[1, 2, 3], [5, 6], [8, 9], [1, 2]]
    assert [one.word_lengths.tolist() for one in dataset] == [[1, 1, 1], [1, 1], [1, 1], [1, 1]]
    assert all(one.annotation.entities == [Entity("X", 0, 0)] for one in dataset)
    assert [dataset.document(number).guid for number in range(5)] == ["0-0", "0-1", "0-2", "0-3", "1-0"]


def test_sentences_without_a_document_have_no_context(bert: PreTrainedTokenizerBase) -> None:
    dataset = dataset_of(bert, [Example("a", ["anna"]), Example("b", ["bob"])])
    assert shown(dataset, bert) == ["[CLS] anna [SEP]", "[CLS] bob [SEP]"]


@pytest.mark.parametrize(
    ("length", "context", "expected"),
    [
        (64, 3, "[CLS] new york [SEP] the man [SEP] he saw [SEP]"),
        (64, 2, "[CLS] york [SEP] the man [SEP] he [SEP]"),
        (64, 1, "[CLS] the man [SEP]"),  # where a separator would stand alone
        (8, 0, "[CLS] york [SEP] the man [SEP] he [SEP]"),
        (4, 0, "[CLS] the man [SEP]"),
    ],
)
def test_both_sides_get_as_much_as_fits_or_as_asked(
    bert: PreTrainedTokenizerBase, length: int, context: int, expected: str
) -> None:
    texts = sentences(["anna met bob new york", "the man", "he saw paris and acme"])
    dataset = dataset_of(bert, texts, length, context, overlap=0)
    (place,) = dataset.windows_of(1, 2)
    assert shown(dataset, bert)[place] == expected


def test_what_one_side_does_not_need_goes_to_the_other_and_words_stay_whole(bert: PreTrainedTokenizerBase) -> None:
    texts = sentences(["the man", "he saw qqq in rome"])  # qqq is three pieces
    assert shown(dataset_of(bert, texts, 7), bert)[0] == "[CLS] the man [SEP] he saw [SEP]"
    assert shown(dataset_of(bert, texts, 9), bert)[0] == "[CLS] the man [SEP] he saw [SEP]"
    assert shown(dataset_of(bert, texts, 10), bert)[0] == "[CLS] the man [SEP] he saw q ##q ##q [SEP]"


def test_only_the_ends_of_a_long_sentence_show_context(bert: PreTrainedTokenizerBase) -> None:
    texts = sentences(["big co", " ".join(["anna"] * 9), "he left"])
    windows = shown(dataset_of(bert, texts, 8, overlap=2), bert)
    assert windows[1:-1] == [
        "[CLS] anna anna anna anna anna anna [SEP]",
        "[CLS] anna anna anna anna anna [SEP]",
    ]


def test_casing_and_the_side_of_padding_stay(bert: PreTrainedTokenizerBase) -> None:
    texts = sentences(["Anna met", "the MAN"])
    with_casing = dataset_of(bert, texts, casing=(0, 5, 6, 7))
    assert [one.segment_ids.tolist() for one in with_casing] == [[0, 5, 0, 0, 0, 6, 0]] * 2
    with_casing.begin_epoch(0, 1.0, 0)
    assert [one.segment_ids.tolist() for one in with_casing] == [[0, 5, 0, 0], [0, 0, 6, 0]]


@given(
    documents=st.lists(
        st.lists(st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join), min_size=1, max_size=5), max_size=3
    ),
    length=st.integers(16, 40),
    context=st.sampled_from([None, 0, 1, 5]),
    seed=st.integers(0, 3),
)
def test_contexts_own_nothing_and_without_them_windows_are_as_ever(
    bert: PreTrainedTokenizerBase, documents: list[list[str]], length: int, context: int | None, seed: int
) -> None:
    texts = sentences(*documents)
    plain, dataset = (dataset_of(bert, texts, length, each, overlap=3) for each in (None, context))
    assert len(plain) == len(dataset)
    lengths = dataset.lengths.tolist()
    for bare in (False, True):
        if bare:
            dataset.begin_epoch(0, 1.0, seed)
            assert dataset.lengths.tolist() == plain.lengths.tolist()
        for number, (one, alone) in enumerate(zip(dataset, plain, strict=True)):
            assert len(one.input_ids) <= length
            firsts = [row.input_ids[row.word_positions].tolist() for row in (one, alone)]
            assert firsts[0] == firsts[1]
            assert one.word_lengths.tolist() == alone.word_lengths.tolist()
            assert one.annotation == alone.annotation
            assert not bare or one.input_ids.tolist() == alone.input_ids.tolist()
            left, right = (dataset.arrays["window_contexts"][number] if not bare else np.zeros(2, int)).tolist()
            passage = [f"[{texts[one.document].document}]" for _ in range(left + right)]  # all of its own document
            assert len(one.input_ids) == len(alone.input_ids) + len(passage)
    dataset.begin_epoch(0, 0.0, seed)
    assert dataset.lengths.tolist() == lengths


def test_an_epoch_leaves_out_some_contexts_the_same_for_all_ranks_and_workers(bert: PreTrainedTokenizerBase) -> None:
    texts = sentences(*[["the man left", "he saw rome"]] * 40)
    whole = dataset_of(bert, texts).lengths.copy()

    def epochs(workers: int = 0, world: int = 1, rank: int = 0, done: int = 0) -> list[list[list[int]]]:
        dataset = dataset_of(bert, texts)
        sampler = BucketBatchSampler(
            lambda epoch: dataset.begin_epoch(epoch, 0.5, seed=3), 8 // world, rank=rank, world_size=world
        )
        feed = StepFeed(dataset, sampler, num_workers=workers)
        if done:
            other = StepFeed(dataset_of(bert, texts), sampler)
            list(other.steps(done))
            feed.load_state_dict(other.state_dict())
        steps = feed.steps(20 - done)
        return [[row[row > 0].tolist() for batch in step.batches for row in batch["input_ids"]] for step in steps]

    steps = epochs()
    counts = [sum(len(row) for step in steps[half : half + 10] for row in step) for half in (0, 10)]
    assert all(400 < count < whole.sum() - 100 for count in counts)
    assert counts[0] != counts[1]
    assert epochs(workers=1) == steps
    assert epochs(done=13) == steps[13:]
    shares = zip(epochs(world=2), epochs(world=2, rank=1), strict=True)
    assert [left + right for left, right in shares] == steps


def test_lengths_are_those_of_the_epoch(bert: PreTrainedTokenizerBase) -> None:
    dataset = dataset_of(bert, sentences(*[["the man left", "he saw rome"]] * 40))
    for epoch in range(2):
        lengths = dataset.begin_epoch(epoch, 0.5, 0)
        assert lengths.tolist() == [len(one.input_ids) for one in dataset] == dataset.lengths.tolist()
        assert set(lengths.tolist()) == {5, 9}


def test_the_cache_keeps_documents_together_and_knows_the_context(
    bert: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [f"{mark}anna B-X\nmet O" for mark in ["-DOCSTART- O\n\n", "", "", "-DOCSTART- O\n\n", "", ""]]
    (tmp_path / "train.txt").write_text("\n\n".join(["bob B-X", *blocks]) + "\n")
    corpus = Corpus("tiny", tmp_path, cache_dir=tmp_path / "cache")
    assert [one.document for one in corpus.examples("train")] == ["", *["train-line-3"] * 3, *["train-line-14"] * 3]
    assert corpus.inventory("train").continuations == 4
    monkeypatch.setattr(cache, "_CHUNK", 2)
    layout = layout_of_tokenizer(bert)
    lengths = {}
    for context in (None, 0, 2):
        spec = FeatureSpec(32, 4, layout, context)
        lengths[context] = open_or_build_features(corpus, "train", spec, bert, tmp_path / "cache").lengths.tolist()
    assert lengths == {None: [3, *[4] * 6], 0: [3, *[10] * 6], 2: [3, *[6, 8, 6] * 2]}


def test_records_name_their_document(tmp_path: Path) -> None:
    line = '{"tokens": ["anna"], "tags": ["B-X"]%s}\n'
    named = [', "doc_id": "a"', ', "doc_id": "a"', ', "document_id": 7', ""]
    (tmp_path / "train.jsonl").write_text("".join(line % name for name in named))
    corpus = Corpus("tiny", tmp_path)
    assert [one.document for one in corpus.examples("train")] == ["a", "a", "7", ""]
    assert corpus.inventory("train").continuations == 1
