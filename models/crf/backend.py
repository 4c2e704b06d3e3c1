"""What a backend has to compute, and which one computes on a device."""

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from .chains import Chains, Gradients, State
from .lattice import Lattice, log_backward, log_forward
from .torch_backend import TorchBackend

logger = logging.getLogger(__name__)
MOST_TAGS_OF_TRITON = 256  # whose transitions fit on the chip


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
    def log_sweep(self) -> Callable[[Lattice, bool], Tensor] | None:
        """The sweeps of `lattice`, `True` for the backward one; None if there is nothing faster than plain torch."""

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        """Best paths (B, W), `padding` where masked, and their scores (B,).

        Raises:
            ValueError: a row has no legal path; the message names the rows.
        """


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


def log_sweep(lattice: Lattice, backwards: bool) -> Tensor:
    """`log_forward` or `log_backward` of a lattice (B, W, C), by a compiled kernel where there is one."""
    potentials = lattice.potentials
    if potentials.dtype == torch.float64 and type(potentials) is Tensor and not torch.compiler.is_compiling():
        sweep = backend_for(potentials.device, lattice.scores.size(0)).log_sweep
        if sweep is not None:
            return sweep(lattice, backwards)
    return log_backward(lattice) if backwards else log_forward(lattice)


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
        return TorchBackend()
    raise ValueError(f"no CRF backend {name!r}: expected torch, numba, numba-rows or triton")
