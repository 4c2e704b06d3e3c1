"""The GPU backend: Triton kernels, one program a sentence. Importing this package imports triton."""

import contextlib
import functools
import math
from typing import Any

import torch
import triton
from torch import Tensor

from ..chains import FAULTS, Chains, Gradients, State
from .kernels import backward_kernel, forward_kernel
from .viterbi import decode_kernel

TILE_A_WARP = 1024  # entries of the transitions that one warp holds: 32 registers a thread for each tile


class TritonBackend:
    """See `Backend`. A row that cannot be computed is reported at a later call, for looking now would stop the stream.

    A kernel that meets one writes its number to host memory, where a later call finds it without asking the GPU.
    """

    sum_at_once = None
    log_sweep = None

    def state_width(self, rows: int, num_tags: int) -> int:
        return num_tags

    def forward(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        emissions = chains.emissions
        B, W, C = emissions.shape
        value, mode = emissions.new_zeros(B), torch.zeros(B, dtype=torch.uint8, device=emissions.device)
        state = State(emissions.new_empty(B, W, C), mode)
        fault = _fault(emissions.device)
        _raise_earlier(fault)
        smallest = math.sqrt(torch.finfo(emissions.dtype).tiny)
        _launch(forward_kernel, chains, tags, smallest, value, mode, state.alpha, fault)
        return value, state

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        B, _, C = chains.emissions.shape
        _raise_earlier(_fault(grad.device))
        emissions = torch.zeros_like(chains.emissions)
        sums = emissions.new_zeros(B, C + 2, C, dtype=torch.float64)
        steps = emissions.stride()[:2]
        _launch(backward_kernel, chains, tags, state.alpha, state.mode, grad, *grad.stride(), emissions, *steps, sums)
        total = sums.sum(0).to(emissions.dtype)  # (C + 2, C), in an order that depends on shapes alone
        return Gradients(emissions, total[C].clone(), total[C + 1].clone(), total[:C])  # none shares another's memory

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        B, W, C = chains.emissions.shape
        paths = torch.full((B, W), padding, device=chains.emissions.device)
        value = chains.emissions.new_zeros(B)
        _raise_earlier(_fault(paths.device))
        _launch(decode_kernel, chains, None, chains.emissions.new_empty(B, W, C), paths, value)
        return paths, value


def _launch(kernel: Any, chains: Chains, tags: Tensor | None, *rest: Any) -> None:
    emissions, start, end, transitions, mask, legal, allowed = chains
    B, W, C = emissions.shape
    if B == 0 or W == 0:
        return
    block = max(16, triton.next_power_of_2(C))
    constants: dict[str, Any] = {
        "C": C,
        "BLOCK": block,
        "HAS_MASK": mask is not None,
        "HAS_LEGAL": legal is not None,
        "HAS_ALLOWED": allowed is not None,
        "num_warps": warps(block),
    }
    given = (emissions, *emissions.stride()[:2], *_strided(mask, emissions))
    if kernel is not decode_kernel:
        constants["HAS_TAGS"] = tags is not None
        given = (*given, *_strided(tags, emissions))
    # A pointer that is not used has to be some pointer all the same.
    tables = (start, end, transitions, emissions if legal is None else legal, emissions if allowed is None else allowed)
    with torch.cuda.device(emissions.device) if emissions.is_cuda else contextlib.nullcontext():
        kernel[(B,)](*given, *tables, W, *rest, **constants)


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
