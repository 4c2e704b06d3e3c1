"""Several processes joined by Gloo, for tests of what they do together."""

import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

from tests.tools.forks import FORKS
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
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)} for rank in range(count)]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with ProcessPoolExecutor(count, mp_context=FORKS) as pool:
        futures = [pool.submit(_work, {**place, **meeting}, ddp_timeout, work, arguments) for place in places]
        return [future.result() for future in futures]


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
    os.environ.update(environment)
    torch.set_num_threads(1)
    setup_devices(MachineSettings(no_cuda=True, ddp_timeout=ddp_timeout))
    try:
        return work(*arguments)
    finally:
        leave_process_group()
