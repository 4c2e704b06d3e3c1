"""The GPU backend: Triton kernels, one program a sentence. Importing this package imports triton."""

import contextlib
import functools
import math
import subprocess
from typing import Any

import torch
import triton
from torch import Tensor

from ..chains import FAULTS, Chains, Gradients, State
from .log_space import log_backward_kernel, log_forward_kernel
from .scaled import backward_kernel, forward_kernel
from .viterbi import decode_kernel

TILE_A_WARP = 1024  # entries of the transitions that one warp holds: 32 registers a thread for each tile


class TritonBackend:
    """See `Backend`. A row that cannot be computed is reported at a later call, for looking now would stop the stream.

    A kernel that meets one writes its number to host memory, where a later call finds it without asking the GPU.

    Raises:
        ImportError: Triton cannot build its launcher, for which it needs a C compiler.
    """

    with_gradients = None
    log_sweep = None

    def __init__(self) -> None:
        if not triton.knobs.runtime.interpret and torch.cuda.is_available():
            try:
                triton.runtime.driver.active.get_current_device()
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:  # no compiler, or no Python.h
                raise ImportError(f"triton: {error}") from error

    def forward(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        emissions = chains.emissions
        B, W, C = emissions.shape
        value, mode = emissions.new_zeros(B), torch.zeros(B, dtype=torch.uint8, device=emissions.device)
        state = State(emissions.new_empty(B, W, C), mode)
        fault = _fault(emissions.device)
        _raise_earlier(fault)
        given = (*_words(chains), *_strided(tags, emissions), *_tables(chains), value, mode, state.alpha, fault)
        flags = {**_flags(chains), "HAS_TAGS": tags is not None}
        limits = torch.finfo(emissions.dtype)
        smallest = math.sqrt(limits.tiny)
        _launch(forward_kernel, chains, *given, **flags, SMALLEST=smallest, RATIO=64 / limits.eps)
        _launch(log_forward_kernel, chains, *given, **flags)
        return value, state

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        B, W, C = chains.emissions.shape
        _raise_earlier(_fault(grad.device))
        emissions = torch.zeros_like(chains.emissions)
        sums = emissions.new_zeros(B, C + 2, C, dtype=torch.float64)
        weights, (left, right) = sums.new_zeros(C, C), sums.new_zeros(2, B * W, C)
        turned = chains.transitions.T.contiguous()
        turned_legal = turned if chains.legal is None else chains.legal.T.contiguous()
        given = (*_words(chains), *_strided(tags, emissions), *_tables(chains), turned, turned_legal)
        given = (*given, state.alpha, state.mode, grad, *grad.stride(), emissions, *emissions.stride()[:2], sums)
        flags = {**_flags(chains), "HAS_TAGS": tags is not None}
        smallest = math.sqrt(torch.finfo(emissions.dtype).tiny)
        _launch(backward_kernel, chains, *given, weights, left, right, **flags, SMALLEST=smallest)
        _launch(log_backward_kernel, chains, *given, **flags)
        total = sums.sum(0)  # (C + 2, C), in an order that depends on shapes alone
        transitions = torch.addcmul(total[:C], weights, right.T @ left).T  # (C, C)
        start, end = total[C:].to(emissions.dtype, copy=True)
        return Gradients(emissions, start, end.clone(), transitions.to(emissions.dtype).contiguous())  # own memory each

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        B, W, C = chains.emissions.shape
        paths = torch.full((B, W), padding, device=chains.emissions.device)
        value = chains.emissions.new_zeros(B)
        _raise_earlier(_fault(paths.device))
        given = (*_words(chains), *_tables(chains), chains.emissions.new_empty(B, W, C), paths, value)
        _launch(decode_kernel, chains, *given, **_flags(chains))
        return paths, value


def _words(chains: Chains) -> tuple[Any, ...]:
    """The first arguments of all kernels."""
    return *_strided(chains.emissions, chains.emissions), *_strided(chains.mask, chains.emissions)


def _tables(chains: Chains) -> tuple[Any, ...]:
    """The next ones, behind the tags of those that take any. An absent pointer has to be some pointer all the same."""
    emissions, start, end, transitions, _, legal, allowed = chains
    _, W, C = emissions.shape
    return start, end, transitions, *(emissions if one is None else one for one in (legal, allowed)), W, C


def _flags(chains: Chains) -> dict[str, bool]:
    given = {"MASK": chains.mask, "LEGAL": chains.legal, "ALLOWED": chains.allowed}
    return {f"HAS_{name}": tensor is not None for name, tensor in given.items()}


def _launch(kernel: Any, chains: Chains, *given: Any, **constants: Any) -> None:
    B, W, C = chains.emissions.shape
    if B == 0 or W == 0:
        return
    block = max(16, triton.next_power_of_2(C))
    with torch.cuda.device(chains.emissions.device) if chains.emissions.is_cuda else contextlib.nullcontext():
        kernel[(B,)](*given, BLOCK=block, num_warps=warps(block), **constants)


def warps(block: int) -> int:
    """How many warps share a tile of transitions (block, block)."""
    return min(32, max(1, block * block // TILE_A_WARP))


def _strided(tensor: Tensor | None, absent: Tensor) -> tuple[Tensor, int, int]:
    return (absent, 0, 0) if tensor is None else (tensor, tensor.stride(0), tensor.stride(1))


@functools.cache
def _fault(device: torch.device) -> Tensor:
    """One number on the host that kernels on a device can write to: 0, or row * 8 + mode."""
    return torch.zeros(1, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")


def _raise_earlier(fault: Tensor) -> None:
    if found := int(fault):
        fault.zero_()
        row, mode = divmod(found, 8)
        raise ValueError(f"{FAULTS[mode]} in row {row} of an earlier batch")
