"""Shares of the ranks, and scores put back in order."""

import numpy as np
import pytest
import torch

import tools.decoding
from tools.decoding import GatheredScores, shared_batches

LENGTHS = np.array([5, 1, 4, 2, 3, 9, 8], np.int32)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_the_ranks_share_out_the_same_batches_however_many_they_are(
    ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.decoding, "world_size", lambda: ranks)
    shares = []
    for rank in range(ranks):
        monkeypatch.setattr(tools.decoding, "rank", lambda rank=rank: rank)
        shares += shared_batches(LENGTHS, 3)
    assert sorted(batch.tolist() for batch in shares) == [[1, 3, 4], [2, 0, 6], [5]]


def test_batches_hold_items_of_like_length() -> None:
    assert [LENGTHS[batch].tolist() for batch in shared_batches(LENGTHS, 3)] == [[1, 2, 3], [4, 5, 8], [9]]


def test_scores_come_back_in_order_without_padding() -> None:
    counts = [2, 0, 3, 1]
    scores = GatheredScores(counts, 2, torch.device("cpu"))
    rows = {item: torch.full((3, 2), float(item)) + torch.arange(3)[:, None] / 10 for item in range(4)}
    for batch in ([3, 0], [1, 2]):
        scores.add(np.array(batch), torch.stack([rows[item] for item in batch]))
    expected = torch.cat([rows[item][:count] for item, count in enumerate(counts)])
    assert torch.equal(scores.over_ranks(), expected)


def test_an_item_may_be_one_unit() -> None:
    scores = GatheredScores([1, 1, 1], 2, torch.device("cpu"))
    scores.add(np.array([2, 0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16))
    scores.add(np.array([1]), torch.tensor([[5.0, 6.0]]))
    assert scores.over_ranks().tolist() == [[3.0, 4.0], [5.0, 6.0], [1.0, 2.0]]
