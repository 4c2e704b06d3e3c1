"""The CPU backend: numba kernels, one sentence a thread. Importing this package imports numba."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.crf.backend import Chains, Gradients, State, raise_for_rows
from models.crf.cpu import threads
from models.crf.cpu.job import Job
from models.crf.cpu.kernels import compile_kernel
from models.crf.cpu.lanes import ROWS, padded

CHUNKS = 32  # parts that a batch is divided into; more would only cost memory for their sums
import os
ABREAST_TAGS = int(os.environ.get("AB", "16"))
PARALLEL_NS = 20_000  # work that is worth several threads


class NumbaBackend:
    """See `Backend`."""

    def state_width(self, num_tags: int) -> int:
        return padded(num_tags)

    def forward(self, chains: Chains, tags: Tensor | None, gradients: bool = False) -> tuple[Tensor, State]:
        B, W, C = chains.emissions.shape
        dtype = chains.emissions.dtype
        value, mode = torch.empty(B, dtype=dtype), torch.empty(B, dtype=torch.uint8)
        if gradients:
            found = _empty_gradients(chains)
            _run("sweep_abreast" if C <= ABREAST_TAGS else "sweep", chains, tags, mode, value=value, gradients=found)
            return value, State(value, mode, found)
        alpha = torch.empty(B, W, padded(C), dtype=dtype)
        _run("sweep", chains, tags, mode, value=value, alpha=alpha)
        return value, State(alpha, mode)

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        gradients = _empty_gradients(chains)
        _run("sweep", chains, tags, state.mode, alpha=state.alpha, grad=grad, gradients=gradients)
        return gradients

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        B, W, C = chains.emissions.shape
        paths = torch.empty(B, W, dtype=torch.long)
        scores, mode = torch.empty(B, dtype=chains.emissions.dtype), torch.empty(B, dtype=torch.uint8)
        _run("decode_abreast" if C <= ABREAST_TAGS else "decode", chains, None, mode, value=scores, paths=paths, padding=padding)
        return paths, scores


def _empty_gradients(chains: Chains) -> Gradients:
    empty = torch.empty_like if len(chains.emissions) else torch.zeros_like
    return Gradients(empty(chains.emissions), empty(chains.start), empty(chains.end), empty(chains.transitions))


def _run(
    name: str,
    chains: Chains,
    tags: Tensor | None,
    mode: Tensor,
    value: Tensor | None = None,
    alpha: Tensor | None = None,
    grad: Tensor | None = None,
    gradients: Gradients | None = None,
    paths: Tensor | None = None,
    padding: int = 0,
) -> None:
    emissions, start, end, transitions, mask, legal, allowed = chains
    B, W, C = emissions.shape
    if B == 0:
        return
    parts = -(-B // ROWS) if name.endswith("abreast") else B
    chunk = -(-parts // CHUNKS)
    chunks = -(-parts // chunk)
    job = Job(
        *(0, 0, 0, B, W, C, padded(C), chunk, chunks),
        *(emissions.data_ptr(), *emissions.stride()[:2]),
        *(_NONE if mask is None else (mask.data_ptr(), *mask.stride())),
        *(_NONE if tags is None else (tags.data_ptr(), *tags.stride())),
        *(start.data_ptr(), end.data_ptr(), transitions.data_ptr()),
        *(_address(legal), _address(allowed), _address(value), mode.data_ptr(), _address(alpha)),
    )
    job.paths, job.padding = _address(paths), padding
    if grad is not None:
        job.grad, (job.grad_row,) = grad.data_ptr(), grad.stride()
    if gradients is not None:
        sums = torch.empty(chunks, C + 2, C, dtype=torch.float64)
        job.sums, job.grad_emissions = sums.data_ptr(), gradients.emissions.data_ptr()
        job.grad_emissions_row, job.grad_emissions_word, _ = gradients.emissions.stride()
        job.grad_start, job.grad_end = gradients.start.data_ptr(), gradients.end.data_ptr()
        job.grad_transitions = gradients.transitions.data_ptr()
    work_ns = B * W * (50 + C * C // 16)
    # All threads or one: OpenMP ends and makes threads when two regions differ in how many they want.
    threads.run(_kernel(name, emissions.dtype), job, threads.thread_limit() if work_ns > PARALLEL_NS else 1)
    if job.fault:
        raise_for_rows(mode)


_NONE = (0, 0, 0)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


@functools.cache
def _kernel(name: str, dtype: torch.dtype) -> Callable[[int], None]:
    like = {torch.float32: np.float32(0), torch.float64: np.float64(0)}[dtype]
    compiled = compile_kernel(name, like, _fingerprint())
    return compiled.ctypes


@functools.cache
def _fingerprint() -> str:
    """A digest of the sources of the kernels."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
