"""Loaders for the Lightning scripts: optimiser steps, also from the middle of an epoch on, and batches to score."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from processors.batch_sampler import BucketBatchSampler


class FixedBatches(Sampler[list[int]]):
    """Batches that are known beforehand, in their order."""

    def __init__(self, batches: Sequence[NDArray[np.int64]]) -> None:
        self._batches = [batch.tolist() for batch in batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


class StepLoader(DataLoader[Any]):
    """Batches of a `BucketBatchSampler`, each with ``num_items_in_batch``: what the loss of its step is divided by.

    Args:
        dataset: what the sampler's indices stand for.
        sampler: deals out the steps; its epoch is set here.
        counts: items of each member of the data set that the loss is a mean over: words of windows, or ones.
        place: the epoch, and the batches of it that are done; asked when the first batch is fetched.
        options: of `DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: BucketBatchSampler,
        counts: Sequence[int] | NDArray[np.int32],
        place: Callable[[], tuple[int, int]],
        **options: Any,
    ) -> None:
        super().__init__(dataset, batch_sampler=sampler, **options)
        self._steps = sampler
        self._counts = np.asarray(counts)
        self._place = place

    def __len__(self) -> int:
        """Batches of the whole epoch, also where it goes on in the middle."""
        return self._steps.steps * self._steps.rounds

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch, done = self._place()
        self._steps.set_epoch(epoch, done // self._steps.rounds)
        for number, batch in enumerate(super().__iter__(), start=done):
            windows = self._steps.step_windows(number // self._steps.rounds)
            yield {**batch, "num_items_in_batch": int(self._counts[windows].sum())}
