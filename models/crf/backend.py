"""What a backend computes, and which one computes on a device."""

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .lattice import Lattice

logger = logging.getLogger(__name__)
MOST_TAGS_OF_TRITON = 256  # whose transitions fit on the chip

# How a row was computed, or why it was not: the values of `State.mode`.
SCALED, LOG_SPACE, NO_GRADIENT, NO_PATH, NO_SUCH_TAG = 0, 1, 2, 3, 4


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


class Backend(Protocol):
    """The computations that have to be fast. Everything else is built on them, or on `lattice`."""

    def state_width(self, rows: int, num_tags: int) -> int:
        """K, the last size of `State.alpha`, for so many rows and tags."""

    def forward(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        """Log-partition (B,), 0 for a row without words; or log-likelihood (B,) of `tags` (B, W) if they are given.

        Raises:
            ValueError: a row has no legal path, or a tag that does not exist; the message names the rows.
        """

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        """Gradients of the sum of grad (B,) * value (B,). A row whose value is -inf has none."""

    @property
    def sum_at_once(self) -> Callable[[Chains, Tensor], tuple[Tensor, Gradients]] | None:
        """The sum of the values of `forward`, (), with the gradients of its negative; None if that saves nothing."""

    @property
    def log_sweep(self) -> "Callable[[Lattice, bool], Tensor] | None":
        """The sweeps of `lattice`, `True` for the backward one; None if there is nothing faster than plain torch."""

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        """Best paths (B, W), `padding` where masked, and their scores (B,).

        Raises:
            ValueError: a row has no legal path; the message names the rows.
        """


FAULTS = {NO_SUCH_TAG: "a tag that does not exist", NO_PATH: "no legal path of finite score"}


def raise_for_rows(mode: Tensor) -> None:
    """Raise ValueError if a row of a batch could not be computed, naming all such rows."""
    for code, what in FAULTS.items():
        rows = (mode == code).nonzero().flatten().tolist()
        if rows:
            raise ValueError(f"{what} in row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))} of the batch")


_forced: list[str] = []


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with the backend `torch`, `numba`, `numba-rows` or `triton` inside the context: for tests, benchmarks."""
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def backend_for(device: torch.device, num_tags: int) -> Backend:
    """The fastest backend that is installed for a device, and can be imported."""
    if _forced:
        return _load(_forced[-1])
    return _fastest(device.type, num_tags <= MOST_TAGS_OF_TRITON)


@functools.cache
def _fastest(kind: str, few_tags: bool) -> Backend:
    compiler = {"cpu": "numba", "cuda": "triton" if few_tags else None}.get(kind)
    if compiler is not None and importlib.util.find_spec(compiler) is not None:
        try:
            return _load(compiler)
        except ImportError as error:  # numba says so of a NumPy that is newer than it knows
            logger.warning("The CRF computes in plain torch, which is slower: %s cannot be used: %s", compiler, error)
    return _load("torch")


@functools.cache
def _load(name: str) -> Backend:
    if name in ("numba", "numba-rows"):
        from .cpu import NumbaBackend

        return NumbaBackend(row_by_row=name == "numba-rows")
    if name == "triton":
        from .gpu import TritonBackend

        return TritonBackend()
    if name == "torch":
        from .torch_backend import TorchBackend

        return TorchBackend()
    raise ValueError(f"no CRF backend {name!r}: expected torch, numba, numba-rows or triton")
