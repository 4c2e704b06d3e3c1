"""Batches of windows of similar length: shuffled by a seed, identical for any number of ranks, resumable mid-epoch."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

_STEPS_PER_CHUNK = 100
_OF_DRAWS = 2  # beside seed and epoch, which the order of the data is drawn from


class BucketBatchSampler(Sampler[list[int]]):
    """Divides an epoch into optimiser steps, and each step into one batch per rank and accumulation round.

    Windows are shuffled, sorted by length within chunks of 100 steps, and cut into steps, which are shuffled again. The
    windows of a step depend only on the seed, the epoch and the global batch size, not on the number of ranks or
    rounds, so training is the same on any number of processes.

    Args:
        lengths: tokens of each window, ``(N,)``, or a function that returns those of an epoch.
        batch_size: windows per rank and round; if it is 1, a batch of a small last step may be empty.
        rounds: gradient accumulation rounds per step.
        rank, world_size: index of this process and number of training processes.
        seed: seed of the shuffling.
        drawn: returns the windows of an epoch, in any order; by default all of them, once.
        max_tokens: if positive, the maximum number of padded tokens per batch, used instead of ``batch_size``; the last
            steps of very small data may have up to twice as many.

    Raises:
        ValueError: there are fewer windows than ranks x rounds, or a window is longer than ``max_tokens``.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.int32] | Callable[[int], NDArray[np.int32]],
        batch_size: int,
        rounds: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        max_tokens: int = 0,
        drawn: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> None:
        self._lengths_in = lengths if callable(lengths) else None
        self._lengths = np.asarray(lengths(0) if callable(lengths) else lengths)
        self._shares = world_size * rounds
        self._drawn = drawn
        windows = len(self._lengths if drawn is None else drawn(0))
        if windows < self._shares:
            counts = f"{windows} windows cannot fill {world_size} processes x {rounds} accumulation rounds"
            raise ValueError(f"{counts}; use fewer, or more data")
        if max_tokens and self._lengths.max() > max_tokens:
            longest = f"a window of {self._lengths.max()} tokens"
            raise ValueError(f"{longest} does not fit max_tokens {max_tokens}; raise it or lower max_seq_length")
        self._batch_size = batch_size
        self.rounds = rounds
        self._rank = rank
        self._seed = seed
        self._max_tokens = max_tokens
        self._epoch = 0
        self._first_step = 0
        self._steps = self._dealt_steps()

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Set the epoch, and the first step if an interrupted epoch is resumed."""
        if epoch != self._epoch:
            self._epoch = epoch
            if self._lengths_in is not None:
                self._lengths = np.asarray(self._lengths_in(epoch))
            self._steps = self._dealt_steps()
        self._first_step = first_step

    @property
    def steps(self) -> int:
        """Number of optimiser steps of the whole epoch."""
        return len(self._steps)

    @property
    def order_digest(self) -> str:
        """Hash of the windows of all steps of the epoch; equal if the training order is the same."""
        digest = hashlib.sha256()
        for windows in self._steps:
            digest.update(windows.astype("<i8").tobytes() + b"|")
        return digest.hexdigest()

    def step_windows(self, step: int) -> NDArray[np.int64]:
        """Windows of one step, over all ranks and rounds."""
        return self._steps[step]

    def __len__(self) -> int:
        return (self.steps - self._first_step) * self.rounds

    def __iter__(self) -> Iterator[list[int]]:
        for windows in self._steps[self._first_step :]:
            shares = np.array_split(windows, self._shares)
            for share in shares[self._rank :: self._shares // self.rounds]:
                yield share.tolist()

    def _dealt_steps(self) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng((self._seed, self._epoch))
        order = generator.permutation(len(self._lengths) if self._drawn is None else self._drawn(self._epoch))
        chunk_size = self._batch_size * self._shares * _STEPS_PER_CHUNK
        steps: list[NDArray[np.int64]] = []
        for start in range(0, len(order), chunk_size):
            chunk = order[start : start + chunk_size]
            chunk = chunk[np.argsort(self._lengths[chunk], kind="stable")]
            steps += self._cut(chunk)
            self._settle_rest(steps)
        generator.shuffle(steps)
        return steps

    def _cut(self, chunk: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Cut windows sorted by length into steps, by count or by padded tokens."""
        if not self._max_tokens:
            size = self._batch_size * self._shares
            return [chunk[start : start + size] for start in range(0, len(chunk), size)]
        steps, start = [], 0
        for end in range(1, len(chunk) + 1):
            full = end == len(chunk)
            if not full:
                share = -(-(end + 1 - start) // self._shares)
                full = share * self._lengths[chunk[end]] > self._max_tokens and end - start >= self._shares
            if full:
                steps.append(chunk[start:end])
                start = end
        return steps

    def _settle_rest(self, steps: list[NDArray[np.int64]]) -> None:
        """Balance a too small last step with the previous one."""
        rest = len(steps[-1])
        if len(steps) < 2 or rest >= (self._shares if self._max_tokens else self._batch_size * self._shares / 2):
            return
        both = np.concatenate(steps[-2:])
        both = both[np.argsort(self._lengths[both], kind="stable")]
        border = len(both) - self._shares if self._max_tokens else (len(both) + 1) // 2
        feasible = border >= self._shares or not self._max_tokens
        steps[-2:] = [both[:border], both[border:]] if feasible else [both]


def draw_by_weight(weights: NDArray[np.float64], epoch: int, seed: int) -> NDArray[np.int64]:
    """Draw the windows of an epoch: each as often as its weight says, and for the fraction at random.

    The number of windows of a weight is the same in each epoch, the nearest to their weight times their number. The
    draw depends on the arguments only, so that ranks and resumed runs agree.

    Args:
        weights: of each window, ``(N,)``.
    """
    parts = []
    for place, weight in enumerate(np.unique(weights)):
        windows = (weights == weight).nonzero()[0]
        copies, rest = divmod(max(1, round(weight * len(windows))), len(windows))
        generator = np.random.default_rng((seed, epoch, _OF_DRAWS, place))
        parts += [windows] * copies + [generator.permutation(windows)[:rest]]
    return np.concatenate(parts)


class StepLoader(DataLoader[Any]):
    """Loads the batches of a `BucketBatchSampler`, each with ``num_items_in_batch``, the loss divisor of its step.

    Args:
        dataset: the data set that the sampler indexes.
        sampler: divides the data into steps; its epoch is set here.
        counts: number of items per element of the data set over which the loss is averaged: words of windows, or ones.
        place: returns the epoch and its number of finished batches; called when the first batch is fetched.
        options: passed to `DataLoader`.
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
        """Number of batches of the whole epoch, also if it is resumed."""
        return self._steps.steps * self._steps.rounds

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch, done = self._place()
        self._steps.set_epoch(epoch, done // self._steps.rounds)
        for number, batch in enumerate(super().__iter__(), start=done):
            windows = self._steps.step_windows(number // self._steps.rounds)
            yield {**batch, "num_items_in_batch": int(self._counts[windows].sum())}


class Step(NamedTuple):
    """Data of one optimiser step: the windows of all ranks, and the batches of this rank, one per round."""

    windows: NDArray[np.int64]
    batches: list[dict[str, Tensor]]


class StepFeed:
    """Yields the optimiser steps of a `BucketBatchSampler` over epochs; resumable at any step.

    Args:
        dataset: the data set that the sampler indexes, with a ``collate`` method.
        sampler: divides the data into steps; its epoch is set here.
        options: passed to `DataLoader`.
    """

    def __init__(self, dataset: Any, sampler: BucketBatchSampler, **options: Any) -> None:
        self._sampler = sampler
        generator = torch.Generator()  # worker seeds must not be drawn from the generator of dropout
        self._loader = DataLoader(
            dataset, batch_sampler=sampler, collate_fn=dataset.collate, generator=generator, **options
        )
        self._epoch = self._next_step = 0
        self.steps_per_epoch = sampler.steps  # of the first epoch; with a token budget others differ slightly

    def steps(self, count: int) -> Iterator[Step]:
        """Yield the next ``count`` steps."""
        while count > 0:
            self._sampler.set_epoch(self._epoch, self._next_step)
            batches = iter(self._loader)
            for step in range(self._next_step, min(self._sampler.steps, self._next_step + count)):
                self._next_step = step + 1
                count -= 1
                yield Step(self._sampler.step_windows(step), list(islice(batches, self._sampler.rounds)))
            if self._next_step == self._sampler.steps:
                self._epoch, self._next_step = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "next_step": self._next_step, "order": self._sampler.order_digest}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Resume from a saved state.

        Raises:
            ValueError: the data or its order has changed.
        """
        self._epoch, self._next_step = saved["epoch"], saved["next_step"]
        self._sampler.set_epoch(self._epoch, self._next_step)
        if self._sampler.order_digest != saved["order"]:
            raise ValueError(
                "the order of the training data has changed: keep the data, --seed, --train_max_seq_length "
                "and the windows per step (batch size x GPUs x processes x --gradient_accumulation_steps)"
            )
