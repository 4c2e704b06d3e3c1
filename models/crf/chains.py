"""What a backend computes on, what it returns, and how it reports a row that it cannot compute."""

from typing import NamedTuple

from torch import Tensor

# How a row was computed, or why it was not: the values of `State.mode`.
SCALED, LOG_SPACE, NO_GRADIENT, NO_PATH, NO_SUCH_TAG = 0, 1, 2, 3, 4
FAULTS = {NO_SUCH_TAG: "a tag that does not exist", NO_PATH: "no legal path of finite score"}


class Chains(NamedTuple):
    """A batch of linear chains. `B` rows, `W` words, `C` tags; scores all of one type, float32 or float64."""

    emissions: Tensor  # (B, W, C), any strides but that of C, which is 1
    start: Tensor  # (C,)
    end: Tensor  # (C,)
    transitions: Tensor  # (C, C), from row to column
    mask: Tensor | None  # (B, W) bool, any strides; what is masked does not exist for the chain
    legal: Tensor | None  # (C + 2, C + 2) bool; row C is the start, column C + 1 the end
    allowed: Tensor | None  # (B, W, C) bool; the tags that a word may have


class Gradients(NamedTuple):
    """By the scores of `Chains`."""

    emissions: Tensor  # (B, W, C)
    start: Tensor  # (C,)
    end: Tensor  # (C,)
    transitions: Tensor  # (C, C)


class State(NamedTuple):
    """What `Backend.backward` needs of `Backend.forward`."""

    alpha: Tensor  # (B, W, K) forward variables, in the backend's own form
    mode: Tensor  # (B,) uint8, how each row was computed


def raise_for_rows(mode: Tensor) -> None:
    """Raise ValueError if a row of a batch could not be computed, naming all such rows."""
    for code, what in FAULTS.items():
        rows = (mode == code).nonzero().flatten().tolist()
        if rows:
            raise ValueError(f"{what} in row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))} of the batch")
