"""Run a C callback on several threads: on those that torch already has.

A second pool of threads beside torch's makes both slow as soon as there are more threads than cores, for an OpenMP
thread goes on spinning for a while after its work is done. So the kernels run as a parallel region of the OpenMP
library that torch itself is linked with, through the entry point that compilers generate calls to.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import torch


def thread_limit() -> int:
    """Threads that one process may use: torch's setting, and its share of the machine beside other local ranks."""
    return max(1, min(torch.get_num_threads(), _share_of_cores()))


@functools.cache
def _share_of_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def run(callback: Callable[[int], None], job: ctypes.Structure, threads: int) -> None:
    """Call `callback` with the address of `job` on `threads` threads at once, and wait for all of them."""
    address = ctypes.addressof(job)
    if threads == 1:
        callback(address)
    elif (parallel := _openmp_parallel()) is not None:
        parallel(callback, address, threads, 0)
    else:
        wait([_pool().submit(callback, address) for _ in range(threads)])


@functools.cache
def _openmp_parallel() -> Callable[..., None] | None:
    """`GOMP_parallel(function, data, threads, flags)` of torch's OpenMP library, None where it has another interface.

    GNU's library has it, and those of LLVM and Intel have it on Linux. Looking it up through libtorch_cpu finds the
    library that torch uses, whatever others are loaded.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_limit(), thread_name_prefix="crf")
