"""Training data dealt out by optimiser steps, over as many epochs as it takes; can go on within an epoch."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from processors.batch_sampler import BucketBatchSampler
from processors.feature_dataset import FeatureDataset
from tools.arguments import NerArguments
from tools.distributed import rank, world_size


class Step(NamedTuple):
    """What one optimiser step learns from: the windows of all ranks, and this rank's batches, one a round."""

    windows: NDArray[np.int64]
    batches: list[dict[str, Tensor]]


class StepFeed:
    """Batches of like length for this rank, a list for each optimiser step.

    Args:
        args: batch sizes, accumulation rounds, seed, workers.
        dataset: the windows to learn from.
    """

    def __init__(self, args: NerArguments, dataset: FeatureDataset) -> None:
        self._rounds = args.gradient_accumulation_steps
        self._sampler = BucketBatchSampler(
            dataset.lengths,
            batch_size=args.per_gpu_train_batch_size * max(1, args.n_gpu),
            rounds=self._rounds,
            rank=rank(),
            world_size=world_size(),
            seed=args.seed,
            max_tokens=args.max_batch_tokens * max(1, args.n_gpu),
        )
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._sampler,
            collate_fn=dataset.collate,
            num_workers=args.num_workers,
            pin_memory=args.device.type == "cuda",
            generator=torch.Generator(),  # its seeds for workers must not come from the generator that dropout uses
        )
        self._epoch = self._next_step = 0
        self.steps_per_epoch = self._sampler.steps  # of the first; with a token budget others differ by a few

    def steps(self, count: int) -> Iterator[Step]:
        """The next so many steps."""
        while count > 0:
            self._sampler.set_epoch(self._epoch, self._next_step)
            batches = iter(self._loader)
            for step in range(self._next_step, min(self._sampler.steps, self._next_step + count)):
                self._next_step = step + 1
                count -= 1
                yield Step(self._sampler.step_windows(step), list(itertools.islice(batches, self._rounds)))
            if self._next_step == self._sampler.steps:
                self._epoch, self._next_step = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "next_step": self._next_step, "order": self._sampler.order_digest}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on where another feed stood.

        Raises:
            ValueError: the data or its order is not the other one's.
        """
        self._epoch, self._next_step = saved["epoch"], saved["next_step"]
        self._sampler.set_epoch(self._epoch, self._next_step)
        if self._sampler.order_digest != saved["order"]:
            raise ValueError(
                "the training data comes in another order than before: keep the data, --seed, --train_max_seq_length "
                "and the windows of a step (batch size x GPUs x processes x --gradient_accumulation_steps)"
            )
