"""One process or many, on one machine or several: torch.distributed, started by torchrun or its older launcher."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tools.arguments import NerArguments

_PATIENCE = timedelta(hours=1)  # rank 0 may download an encoder and build a large cache meanwhile


def setup_devices(args: NerArguments) -> None:
    """Joins the process group where a launcher started several, and fills ``args.device`` and ``args.n_gpu``.

    ``n_gpu`` is the number of GPUs of this process: several without a launcher (DataParallel), one with it.
    """
    use_cuda = torch.cuda.is_available() and not args.no_cuda
    if "LOCAL_RANK" in os.environ:  # the launchers set it, whatever flag they pass beside it
        args.local_rank = int(os.environ["LOCAL_RANK"])
    if args.local_rank == -1:
        args.device = torch.device("cuda" if use_cuda else "cpu")
        args.n_gpu = torch.cuda.device_count() if use_cuda else 0
        return
    if "RANK" not in os.environ:
        raise ValueError("--local_rank is for torch.distributed.launch; start several processes with torchrun")
    if use_cuda:
        torch.cuda.set_device(args.local_rank)
    args.device = torch.device("cuda", args.local_rank) if use_cuda else torch.device("cpu")
    args.n_gpu = 1 if use_cuda else 0
    if not dist.is_initialized():
        dist.init_process_group("nccl" if use_cuda else "gloo", timeout=_PATIENCE)


def leave_process_group() -> None:
    if dist.is_available() and dist.is_initialized():
        _cpu_group.cache_clear()
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that downloads, builds caches, logs and writes."""
    return rank() == 0


def barrier() -> None:
    """Waits for all processes."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Rank 0 runs the block while the others wait; then they run it, and find what it left."""
    if not is_main():
        barrier()
    try:
        yield
    finally:
        if is_main():
            barrier()


def send_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrites the tensors of all processes by those of rank 0."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def said_by_main(names: list[str]) -> list[str]:
    """The list that rank 0 has, on all processes, so that they do the same whatever their disks hold."""
    said: list[Any] = [names]
    if world_size() > 1:
        dist.broadcast_object_list(said, src=0)
    return list(said[0])


def any_rank(flag: bool) -> bool:
    """Whether the flag is up on any process; asked through the CPU, so that no GPU is waited for."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(flag, dtype=torch.uint8)
    dist.all_reduce(flags, dist.ReduceOp.MAX, group=_cpu_group())
    return bool(flags)


def gather_to_main(one: Any) -> list[Any]:
    """The objects of all processes, in order, on rank 0; an empty list on the others."""
    if world_size() == 1:
        return [one]
    gathered: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(one, gathered, group=_cpu_group())
    return gathered or []


def run_on_main(action: Callable[[], None]) -> None:
    """Rank 0 acts while the others wait; where it fails, all do."""
    failure: BaseException | None = None
    if is_main():
        try:
            action()
        except Exception as error:
            failure = error
    said = said_by_main([str(failure)] if failure is not None else [])
    if failure is not None:
        raise failure
    if said:
        raise RuntimeError(f"rank 0 failed: {said[0]}")


@functools.cache
def _cpu_group() -> dist.ProcessGroup:
    return dist.new_group(backend="gloo")


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Adds the tensors of all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor
