"""Memory of processes and devices."""

import sys
from collections.abc import Iterable
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> float:
    """Peak memory in GiB: of tensors on the GPU of this process, or of the process; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def memory_mib(pids: Iterable[int], what: str) -> float:
    """Sum of ``VmRSS`` (resident memory) or ``VmHWM`` (its peak) of processes (Linux)."""
    states = (Path(f"/proc/{pid}/status").read_text("ascii") for pid in pids)
    return sum(int(state.partition(f"{what}:")[2].split()[0]) for state in states) / 1024
