"""Batches that say what their step is divided by, from the start of an epoch or from its middle."""

from typing import Any

import numpy as np
import pytest
from torch.utils.data import Dataset

from processors.features.batching import BucketBatchSampler, StepLoader

LENGTHS = np.array([(7 * index) % 19 + 1 for index in range(50)], np.int32)


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, index: int) -> int:
        return index


def loader(place: tuple[int, int], workers: int = 0) -> StepLoader:
    sampler = BucketBatchSampler(LENGTHS, batch_size=4, rounds=2, seed=3)
    options: dict[str, Any] = {"collate_fn": lambda items: {"items": items}, "num_workers": workers}
    return StepLoader(Numbers(), sampler, LENGTHS, lambda: place, **options)


def batches(place: tuple[int, int], workers: int = 0) -> list[dict[str, Any]]:
    return list(loader(place, workers))


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_was_left(epoch: int, workers: int) -> None:
    whole = batches((epoch, 0))
    assert len(loader((epoch, 6))) == len(whole)
    assert batches((epoch, 6), workers) == whole[6:]


def test_epochs_differ_and_each_has_everything() -> None:
    first, second = batches((0, 0)), batches((1, 0))
    assert first != second
    for epoch in (first, second):
        assert sorted(item for batch in epoch for item in batch["items"]) == list(range(50))


def test_each_batch_knows_the_items_of_its_whole_step() -> None:
    found = batches((0, 0))
    for first, second in zip(found[::2], found[1::2], strict=True):
        total = sum(int(LENGTHS[item]) for item in first["items"] + second["items"])
        assert first["num_items_in_batch"] == second["num_items_in_batch"] == total


def test_the_place_is_asked_when_the_first_batch_is_wanted() -> None:
    place = [0, 0]
    sampler = BucketBatchSampler(LENGTHS, batch_size=4, seed=3)
    made = StepLoader(
        Numbers(), sampler, LENGTHS, lambda: (place[0], place[1]), collate_fn=lambda items: {"items": items}
    )
    waiting = iter(made)
    place[0] = 1
    sampler.set_epoch(1)
    assert next(waiting)["items"] == next(iter(sampler))
