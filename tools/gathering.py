"""Scores of a split that ranks compute by shares, put back in order and gathered on all of them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.distributed import rank, sum_over_ranks, world_size


def shared_batches(lengths: Sequence[int] | NDArray[np.int32], batch_size: int) -> list[NDArray[np.int64]]:
    """This rank's share of the batches of a split, each of items of like length.

    What makes up a batch does not depend on how many ranks there are, so neither does any bit of the scores.
    """
    by_length = np.argsort(lengths, kind="stable")
    batches = [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]
    return batches[rank() :: world_size()]


class GatheredScores:
    """One row of scores for each of the units that the items of a split consist of: words of windows, or the items.

    Args:
        counts: units of each item.
        num_columns: C, scores of a unit.
        device: where they are kept.
    """

    def __init__(self, counts: Sequence[int] | NDArray[np.int32], num_columns: int, device: torch.device) -> None:
        self._counts = np.asarray(counts, np.int64)
        self._starts = np.concatenate(([0], np.cumsum(self._counts)))
        self._scores = torch.zeros(int(self._starts[-1]), num_columns, device=device)

    def add(self, items: NDArray[np.int64], logits: Tensor) -> None:
        """Keeps what a batch of items scored, ``(B, W, C)``, or ``(B, C)`` where each item is one unit."""
        counts = self._counts[items]
        rows = np.repeat(np.arange(len(items)), counts)
        columns = np.concatenate([np.arange(count) for count in counts])
        places = np.repeat(self._starts[items], counts) + columns
        found = (logits if logits.ndim == 3 else logits.unsqueeze(1)).float()  # (B, W, C)
        self._scores[torch.from_numpy(places)] = found[torch.from_numpy(rows), torch.from_numpy(columns)]

    @property
    def of_this_rank(self) -> Tensor:
        """The rows that this rank scored, in the order of the items, and zeros for the others: ``(units, C)``."""
        return self._scores

    def over_ranks(self) -> Tensor:
        """The rows of all ranks, in the order of the items: ``(units, C)``; to be called once, by all."""
        return sum_over_ranks(self._scores)
