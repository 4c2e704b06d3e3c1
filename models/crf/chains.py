"""What a backend computes, on what, what it returns, and how it reports a row that it cannot compute."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# How a row was computed, or why it was not: the values of `State.mode`.
SCALED, LOG_SPACE, NO_GRADIENT, NO_PATH, NO_SUCH_TAG = 0, 1, 2, 3, 4
# To a search, a score that is NaN or +inf leaves a row without a path of finite score; a value is NaN then.
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


class RowGradients(NamedTuple):
    """Of the negative of each row's value: so the loss needs no further pass over them."""

    emissions: Tensor  # (B, W, C)
    sums: Tensor  # (B, C + 2, C) by the transitions, and behind them the start and the end, in double precision

    def weighted(self, grad: Tensor) -> Gradients:
        """The gradients of the sum of grad (B,) * value. Overwrites these. Rows with a grad of 0 have none."""
        emissions, sums = self
        factors = set(grad.tolist()) if grad.device.type == "cpu" else {0.0}  # looking would stop a GPU's stream
        if factors != {-1.0}:
            for gradient in self:
                gradient *= -grad[:, None, None]
                if 0.0 in factors:  # what is infinite or not a number stays so otherwise
                    gradient.masked_fill_((grad == 0)[:, None, None], 0)
        C, dtype = emissions.size(2), emissions.dtype
        total = sums.sum(0)  # (C + 2, C)
        transitions, start, end = (part.to(dtype, copy=True) for part in (total[:C], total[C], total[C + 1]))
        return Gradients(emissions, start, end, transitions)


class State(NamedTuple):
    """What `Backend.backward` needs of `Backend.forward`."""

    alpha: Tensor  # (B, W, C) forward variables, if the backend keeps them
    mode: Tensor  # (B,) uint8, how each row was computed


class Backend(Protocol):
    """The computations that have to be fast. Everything else is built on them, or on `lattice`."""

    def forward(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        """Log-partition (B,), 0 for a row without words; or log-likelihood (B,) of `tags` (B, W) if they are given.

        Raises:
            ValueError: a row has no legal path, or a tag that does not exist; the message names the rows.
        """

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        """Gradients of the sum of grad (B,) * value (B,). A row whose value is -inf has none."""

    @property
    def with_gradients(self) -> Callable[[Chains, Tensor | None], tuple[Tensor, RowGradients]] | None:
        """The values of `forward` with their gradients; None if that saves nothing."""

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        """Best paths (B, W), `padding` where masked, and their scores (B,).

        Raises:
            ValueError: a row has no legal path; the message names the rows.
        """


def raise_for_rows(mode: Tensor) -> None:
    """Raise ValueError if a row of a batch could not be computed, naming all such rows."""
    for code, what in FAULTS.items():
        rows = (mode == code).nonzero().flatten().tolist()
        if rows:
            raise ValueError(f"{what} in row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))} of the batch")


def check_inputs(
    num_tags: int, device: torch.device, emissions: Tensor, tags: Tensor | None, mask: Tensor | None
) -> None:
    """Check shapes and types as pytorch-crf does, but do not look at the mask's values: any mask is right."""
    shape = emissions.shape
    if len(shape) != 3:
        raise ValueError(f"emissions must have dimension of 3, got {len(shape)}")
    B, W, C = shape
    if num_tags != C:
        raise ValueError(f"expected last dimension of emissions is {num_tags}, got {C}")
    if emissions.is_complex():
        raise ValueError(f"emissions must be real numbers, got {emissions.dtype}")
    if tags is not None and (tags.is_floating_point() or tags.is_complex()):
        raise ValueError(f"tags must be whole numbers, got {tags.dtype}")
    if device != emissions.device:
        raise RuntimeError(f"the layer is on {device}, the emissions on {emissions.device}")
    for name, tensor in (("tags", tags), ("mask", mask)):
        if tensor is not None and tensor.device != emissions.device:
            raise RuntimeError(f"{name} must be on {emissions.device} as the emissions are, got {tensor.device}")
        if tensor is not None and tensor.shape != (B, W):
            raise ValueError(
                f"the first two dimensions of emissions and {name} must match, got {(B, W)} and {tuple(tensor.shape)}"
            )


def check_allowed(emissions: Tensor, allowed: Tensor) -> None:
    if allowed.device != emissions.device:
        raise RuntimeError(f"allowed must be on {emissions.device} as the emissions are, got {allowed.device}")
    if allowed.shape != emissions.shape or allowed.dtype != torch.bool:
        raise ValueError(
            f"allowed must be a bool tensor of shape {tuple(emissions.shape)}, "
            f"got {allowed.dtype} of {tuple(allowed.shape)}"
        )
