"""Which backend computes on a device."""

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from .chains import Backend
from .lattice import Lattice, log_backward, log_forward
from .torch_backend import TorchBackend

logger = logging.getLogger(__name__)
MOST_TAGS_OF_TRITON = 256  # whose transitions fit on the chip
_forced: list[str] = []


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with the backend `torch`, `cpp` or `triton` inside the context: for tests and benchmarks."""
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def backend_for(device: torch.device, num_tags: int) -> Backend:
    """The fastest backend for a device that can be used."""
    if _forced:
        return _load(_forced[-1])
    return _fastest(device.type, num_tags <= MOST_TAGS_OF_TRITON)


def log_sweep(lattice: Lattice, backwards: bool) -> Tensor:
    """`log_forward` or `log_backward` of a lattice (B, W, C), by the compiled library where there is one."""
    potentials = lattice.potentials
    if potentials.dtype == torch.float64 and potentials.device.type == "cpu" and type(potentials) is Tensor:
        sweep = getattr(backend_for(potentials.device, lattice.scores.size(0)), "log_sweep", None)
        if sweep is not None:
            found: Tensor = sweep(lattice, backwards)
            return found
    return log_backward(lattice) if backwards else log_forward(lattice)


@functools.cache
def _fastest(kind: str, few_tags: bool) -> Backend:
    if kind == "cuda" and few_tags and importlib.util.find_spec("triton") is not None:
        try:
            return _load("triton")
        except ImportError as error:
            logger.warning("The CRF computes in plain torch, which is slower: triton cannot be used: %s", error)
    if kind == "cpu":
        try:
            return _load("cpp")
        except ImportError as error:
            logger.warning(
                "The CRF computes in plain torch, 10 to 30 times slower than its C++, for that could not be compiled: "
                "%s. Install a C++ compiler (for instance `apt install g++` or `pip install ziglang`), or name one in "
                "the environment variable CXX",
                error,
            )
    return _load("torch")


@functools.cache
def _load(name: str) -> Backend:
    if name == "cpp":
        from .cpu import CppBackend

        return CppBackend()
    if name == "triton":
        from .gpu import TritonBackend

        return TritonBackend()
    if name == "torch":
        return TorchBackend()
    raise ValueError(f"no CRF backend {name!r}: expected torch, cpp or triton")
