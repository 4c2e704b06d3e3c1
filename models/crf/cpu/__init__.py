"""The CPU backend: numba kernels, one sentence a thread. Importing this package imports numba."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.crf.backend import Chains, Forward, Gradients, raise_for_rows
from models.crf.cpu import threads
from models.crf.cpu.job import Job
from models.crf.cpu.kernels import compile_kernel
from models.crf.cpu.lanes import padded

CHUNKS = 32  # parts that a batch is divided into; more would only cost memory for their sums
THREAD_NS = 5000  # work that is worth a thread: waking one takes about half as long


class NumbaBackend:
    """See `Backend`."""

    def state_width(self, num_tags: int) -> int:
        return padded(num_tags)

    def forward(self, chains: Chains, tags: Tensor | None) -> Forward:
        emissions = chains.emissions
        B, W, C = emissions.shape
        forward = Forward(
            value=emissions.new_empty(B),
            alpha=emissions.new_empty(B, W, padded(C)),
            mode=emissions.new_empty(B, dtype=torch.uint8),
        )
        _run("forward", chains, tags=tags, forward=forward)
        return forward

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, forward: Forward) -> Gradients:
        gradients = Gradients(*(torch.empty_like(score) for score in chains[:4]))
        _run("backward", chains, tags=tags, forward=forward, grad=grad.contiguous(), gradients=gradients)
        return gradients

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        emissions = chains.emissions
        B, W, _ = emissions.shape
        paths = torch.full((B, W), padding)
        scores = emissions.new_empty(B)
        forward = Forward(scores, scores, emissions.new_empty(B, dtype=torch.uint8))
        _run("decode", chains, forward=forward, paths=paths)
        return paths, scores


def _run(
    name: str,
    chains: Chains,
    forward: Forward,
    tags: Tensor | None = None,
    grad: Tensor | None = None,
    gradients: Gradients | None = None,
    paths: Tensor | None = None,
) -> None:
    emissions, start, end, transitions, mask, legal, allowed = chains
    B, W, C = emissions.shape
    if B == 0:
        for gradient in gradients or ():
            gradient.zero_()
        return
    chunk = -(-B // CHUNKS)
    chunks = -(-B // chunk)
    row_sums = emissions.new_empty(chunks, C + 2, C, dtype=torch.float64) if gradients else None
    job = Job(
        *(0, 0, 0),
        *(B, W, C, padded(C), chunk, chunks),
        *(_strided(emissions) + _strided(mask) + _strided(tags)),
        *(_address(start), _address(end), _address(transitions), _address(legal), _address(allowed)),
        *(_address(forward.value), _address(forward.mode), _address(forward.alpha)),
        *(_address(grad), *_strided(gradients.emissions if gradients else None), _address(row_sums)),
        *map(_address, gradients[1:] if gradients else (None, None, None)),
        _address(paths),
    )
    work_ns = B * W * (50 + C * C // 16)
    threads.run(_kernel(name, emissions.dtype), job, max(1, min(threads.thread_limit(), chunks, work_ns // THREAD_NS)))
    if job.fault:
        raise_for_rows(forward.mode)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _strided(tensor: Tensor | None) -> tuple[int, int, int]:
    """Address, and strides of rows and words, in entries."""
    return (0, 0, 0) if tensor is None else (tensor.data_ptr(), tensor.stride(0), tensor.stride(1))


@functools.cache
def _kernel(name: str, dtype: torch.dtype) -> Callable[[int], None]:
    like = {torch.float32: np.float32(0), torch.float64: np.float64(0)}[dtype]
    compiled = compile_kernel(name, like, _fingerprint())
    return compiled.ctypes  # type: ignore[no-any-return]


@functools.cache
def _fingerprint() -> str:
    """A digest of the sources of the kernels."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
