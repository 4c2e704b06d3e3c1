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
from models.crf.cpu.lanes import padded

CHUNKS = 32  # parts that a batch is divided into; more would only cost memory for their sums
PARALLEL_NS = 20_000  # work that is worth several threads


class NumbaBackend:
    """See `Backend`."""

    def state_width(self, num_tags: int) -> int:
        return padded(num_tags)

    def forward(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        B, W, C = chains.emissions.shape
        dtype = chains.emissions.dtype
        value = torch.empty(B, dtype=dtype)
        state = State(torch.empty(B, W, padded(C), dtype=dtype), torch.empty(B, dtype=torch.uint8))
        _run("forward", chains, value, state, tags=tags)
        return value, state

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        gradients = Gradients(*(torch.empty_like(score) for score in chains[:4]))
        if grad.numel() == 0:
            return Gradients(*(gradient.zero_() for gradient in gradients))
        _run("backward", chains, None, state, tags=tags, grad=grad, gradients=gradients)
        return gradients

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        B, W, _ = chains.emissions.shape
        paths = torch.full((B, W), padding)
        scores = torch.empty(B, dtype=chains.emissions.dtype)
        _run("decode", chains, scores, State(scores, torch.empty(B, dtype=torch.uint8)), paths=paths)
        return paths, scores


def _run(
    name: str,
    chains: Chains,
    value: Tensor | None,
    state: State,
    tags: Tensor | None = None,
    grad: Tensor | None = None,
    gradients: Gradients | None = None,
    paths: Tensor | None = None,
) -> None:
    emissions, start, end, transitions, mask, legal, allowed = chains
    B, W, C = emissions.shape
    if B == 0:
        return
    chunk = -(-B // CHUNKS)
    chunks = -(-B // chunk)
    width = padded(C)
    sums = torch.empty(chunks, C + 2, C, dtype=torch.float64) if gradients else None
    job = Job(
        *(0, 0, 0, B, W, C, width, chunk, chunks),
        *(emissions.data_ptr(), *emissions.stride()[:2]),
        *(_NONE if mask is None else (mask.data_ptr(), *mask.stride())),
        *(_NONE if tags is None else (tags.data_ptr(), *tags.stride())),
        *(start.data_ptr(), end.data_ptr(), transitions.data_ptr()),
        *(_address(legal), _address(allowed)),
        *(_address(value), state.mode.data_ptr(), state.alpha.data_ptr()),
    )
    if gradients and grad is not None:
        job.grad, (job.grad_row,) = grad.data_ptr(), grad.stride()
        job.grad_emissions = gradients.emissions.data_ptr()
        job.grad_emissions_row, job.grad_emissions_word, _ = gradients.emissions.stride()
        job.grad_start, job.grad_end = gradients.start.data_ptr(), gradients.end.data_ptr()
        job.grad_transitions, job.sums = gradients.transitions.data_ptr(), _address(sums)
    job.paths = _address(paths)
    work_ns = B * W * (50 + C * C // 16)
    # All threads or one: OpenMP ends and makes threads when two regions differ in how many they want.
    threads.run(_kernel(name, emissions.dtype), job, threads.thread_limit() if work_ns > PARALLEL_NS else 1)
    if job.fault:
        raise_for_rows(state.mode)


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
