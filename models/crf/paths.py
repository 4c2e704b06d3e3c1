"""Tag sequences that were found: as tensors, and as lists."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

PADDING = -100  # the tag of a masked word, as in torch.nn.functional.cross_entropy


class Paths(NamedTuple):
    """Tag sequences as tensors, without lists on the host."""

    tags: Tensor  # (B, W), with nbest (B, W, nbest), PADDING where masked
    scores: Tensor  # (B,), with nbest (B, nbest), -inf where there are fewer paths; log P = score - log_partition


def rows_as_lists(tags: np.ndarray, mask: np.ndarray | None, num_tags: int) -> list[list[int]]:
    """The rows of `tags` (B, W), each without what is masked."""
    if mask is None:
        rows: list[list[int]] = tags.tolist()
        return rows
    words, counts = tags[mask], mask.sum(1).tolist()
    # Parts of a byte string become lists twice as fast as those of a list of all words.
    in_order: Sequence[int] = words.astype(np.uint8).tobytes() if num_tags <= 256 else words.tolist()
    return [[*in_order[end - count : end]] for end, count in zip(itertools.accumulate(counts), counts, strict=True)]
