"""Several processes joined by Gloo, for tests of what they do together."""

import gc
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

from tests.tools.forks import FORKS, Forked
from tools.distributed import leave_process_group, setup_devices
from tools.settings import MachineSettings

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_ranks(count: int, work: Callable[..., Result], *arguments: Any, ddp_timeout: int = 60) -> list[Result]:
    """What a function returns on each of so many new processes; an exception of one is raised here.

    Args:
        count: of processes.
        work: a function of a module, so that other processes find it.
        ddp_timeout: seconds that they wait for each other.
    """
    with ProcessPoolExecutor(count, mp_context=FORKS) as pool:
        futures = [pool.submit(_work, place, ddp_timeout, work, arguments) for place in _places(count)]
        return [future.result() for future in futures]


def script_on_ranks(count: int, command: Sequence[str], flags: Sequence[str]) -> list[Forked]:
    """``python COMMAND FLAG ...``, running on each of so many ranks as torchrun starts them."""
    return [Forked(command, flags, place) for place in _places(count)]


def _places(count: int) -> list[dict[str, str]]:
    """The variables that torchrun sets for each rank."""
    meeting = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **meeting} for rank in range(count)]


def each_on_ranks(count: int, work: Callable[[Item], Result], items: Sequence[Item]) -> list[list[Result]]:
    """What `on_ranks` returns for each of several arguments, in turn in the same processes."""
    ranks = on_ranks(count, _for_each, work, items)
    return [list(results) for results in zip(*ranks, strict=True)]


def _for_each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _work(
    environment: dict[str, str], ddp_timeout: int, work: Callable[..., Result], arguments: tuple[Any, ...]
) -> Result:
    gc.freeze()
    os.environ.update(environment)
    torch.set_num_threads(1)
    setup_devices(MachineSettings(no_cuda=True, ddp_timeout=ddp_timeout))
    try:
        return work(*arguments)
    finally:
        leave_process_group()
