"""Batches of windows of like length: complete, reproducible, resumable, the same on any number of processes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.corpus import Corpus
from processors.features.batching import BucketBatchSampler

lengths_of_windows = st.lists(st.integers(3, 64), min_size=8, max_size=150)


def samplers(lengths: Sequence[int], world_size: int, **options: Any) -> list[BucketBatchSampler]:
    """One sampler a rank."""
    return [BucketBatchSampler(lengths, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def steps_of(lengths: Sequence[int], world_size: int, rounds: int, **options: Any) -> list[list[int]]:
    """The windows of each step, put together from all ranks and rounds."""
    ranks = [list(sampler) for sampler in samplers(lengths, world_size, rounds=rounds, **options)]
    steps = range(0, len(ranks[0]), rounds)
    return [
        sorted(index for batches in ranks for batch in batches[start : start + rounds] for index in batch)
        for start in steps
    ]


def padded_tokens(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)


@given(
    lengths=lengths_of_windows,
    batch_size=st.integers(1, 9),
    rounds=st.integers(1, 2),
    world_size=st.sampled_from([1, 2, 4]),
    max_tokens=st.sampled_from([0, 64, 150]),
    epoch=st.integers(0, 3),
)
def test_every_window_comes_once_an_epoch(
    lengths: list[int], batch_size: int, rounds: int, world_size: int, max_tokens: int, epoch: int
) -> None:
    ranks = samplers(lengths, world_size, batch_size=batch_size, rounds=rounds, max_tokens=max_tokens)
    seen = []
    for sampler in ranks:
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == sampler.steps * rounds
        assert all(batches)
        seen += [index for batch in batches for index in batch]
    assert sorted(seen) == list(range(len(lengths)))


@given(lengths=lengths_of_windows, batch_size=st.integers(1, 6), seed=st.integers(0, 5))
def test_steps_are_the_same_for_any_number_of_ranks_and_rounds(lengths: list[int], batch_size: int, seed: int) -> None:
    expected = steps_of(lengths, 1, 1, batch_size=4 * batch_size, seed=seed)
    for world_size, rounds in [(2, 1), (4, 1), (1, 2), (1, 4), (2, 2)]:
        share = 4 * batch_size // (world_size * rounds)
        assert steps_of(lengths, world_size, rounds, batch_size=share, seed=seed) == expected


@given(lengths=lengths_of_windows, world_size=st.sampled_from([1, 2, 4]), rounds=st.integers(1, 2))
def test_step_windows_are_those_of_all_ranks(lengths: list[int], world_size: int, rounds: int) -> None:
    sampler = BucketBatchSampler(lengths, 3, rounds, 0, world_size)
    steps = steps_of(lengths, world_size, rounds, batch_size=3)
    assert [sorted(sampler.step_windows(step).tolist()) for step in range(sampler.steps)] == steps


@given(lengths=lengths_of_windows, rounds=st.integers(1, 2), epoch=st.integers(0, 3), data=st.data())
def test_a_resumed_epoch_is_the_tail_of_the_uninterrupted_one(
    lengths: list[int], rounds: int, epoch: int, data: st.DataObject
) -> None:
    whole, resumed = (BucketBatchSampler(lengths, 3, rounds, 1, 2, seed=7) for _ in range(2))
    whole.set_epoch(epoch)
    first_step = data.draw(st.integers(0, whole.steps))
    resumed.set_epoch(epoch, first_step)
    assert list(resumed) == list(whole)[first_step * rounds :]
    assert len(resumed) == len(whole) - first_step * rounds


def test_the_epoch_after_a_resumed_one_is_whole() -> None:
    sampler = BucketBatchSampler(range(1, 101), 5)
    sampler.set_epoch(3, first_step=7)
    sampler.set_epoch(4)
    assert sum(map(len, sampler)) == 100


def test_seed_and_epoch_alone_decide_the_order() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = BucketBatchSampler(range(1, 101), 5, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert len({str(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_windows_of_one_length_are_dealt_anew_each_epoch() -> None:
    sampler = BucketBatchSampler([7] * 60, 6)
    first = {frozenset(batch) for batch in sampler}
    sampler.set_epoch(1)
    assert first.isdisjoint(frozenset(batch) for batch in sampler)


@given(
    lengths=st.lists(st.integers(3, 33), min_size=8, max_size=150) | st.integers(8, 150).map(lambda size: [33] * size),
    world_size=st.sampled_from([1, 2, 4]),
    rounds=st.integers(1, 2),
)
def test_padded_tokens_stay_within_their_bound(lengths: list[int], world_size: int, rounds: int) -> None:
    for sampler in samplers(lengths, world_size, batch_size=2, rounds=rounds, max_tokens=100):
        assert all(padded_tokens([batch], lengths) <= 100 for batch in sampler)


@given(lengths=lengths_of_windows, world_size=st.sampled_from([1, 2]))
def test_without_a_bound_no_batch_is_larger_than_asked(lengths: list[int], world_size: int) -> None:
    for sampler in samplers(lengths, world_size, batch_size=4):
        assert max(map(len, sampler)) <= 4


def test_a_token_budget_is_used_up() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 2000).tolist()
    batches = list(BucketBatchSampler(lengths, 8, max_tokens=512))
    assert padded_tokens(batches, lengths) >= 0.9 * 512 * len(batches)


def test_batches_hold_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(5, 500, 3000).tolist()
    assert sum(lengths) >= 0.95 * padded_tokens(list(BucketBatchSampler(lengths, 16)), lengths)


def test_steps_of_long_and_short_windows_alternate() -> None:
    lengths = list(range(1, 2001))
    means = [float(np.mean(batch)) for batch in BucketBatchSampler(lengths, 20)]
    assert abs(float(np.corrcoef(means, range(len(means)))[0, 1])) < 0.5


@pytest.mark.parametrize(("world_size", "rounds"), [(4, 1), (1, 4), (2, 2)])
def test_fewer_windows_than_ranks_and_rounds_are_refused(world_size: int, rounds: int) -> None:
    with pytest.raises(
        ValueError, match=f"3 windows cannot fill {world_size} processes x {rounds} accumulation rounds"
    ):
        BucketBatchSampler([5, 6, 7], 1, rounds, 0, world_size)


def test_a_window_longer_than_the_token_budget_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a window of 70 tokens does not fit max_tokens 64; .*max_seq_length"):
        BucketBatchSampler([5, 70], 1, max_tokens=64)


@pytest.fixture
def cner_lengths(data_root: Path) -> list[int]:
    """Tokens of CNER's training sentences: its characters, [CLS] and [SEP]."""
    return [len(example.words) + 2 for example in Corpus("cner", data_root / "cner").examples("train")]


@pytest.mark.corpora
def test_batches_of_24_of_cner_are_95_percent_real(cner_lengths: list[int]) -> None:
    real = sum(cner_lengths)
    order = np.random.default_rng(0).permutation(len(cner_lengths)).tolist()
    random_batches = [order[start : start + 24] for start in range(0, len(order), 24)]
    assert real / padded_tokens(random_batches, cner_lengths) == pytest.approx(0.34, abs=0.03)
    sampler = BucketBatchSampler(cner_lengths, 24)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert real / padded_tokens(list(sampler), cner_lengths) >= 0.95


def test_dealing_an_epoch_of_a_million_windows_takes_seconds() -> None:
    assert BucketBatchSampler(np.arange(1_000_000, dtype=np.int32) % 120 + 3, 32).steps == 31250
