"""One process or many, on one machine or several: torch.distributed, started by torchrun or its older launcher."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from tools.arguments import NerArguments


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
        dist.init_process_group("nccl" if use_cuda else "gloo")


def leave_process_group() -> None:
    if dist.is_available() and dist.is_initialized():
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


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Adds the tensors of all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor
