"""One process or many: the process group and collectives of torch.distributed, and interruption by signals."""

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from tools.settings import MachineSettings

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class MainProcessError(RuntimeError):
    """Rank 0 failed while this process waited for it; rank 0 reports the cause."""


def setup_devices(machine: MachineSettings) -> tuple[torch.device, int]:
    """Join the process group, if a launcher started this process.

    Returns:
        The device, and the number of GPUs of this process: all GPUs without a launcher (DataParallel), one with it.
    """
    # Momentum of embeddings that are no longer used decays to denormal numbers, which are slow on CPUs.
    torch.set_flush_denormal(True)
    use_cuda = torch.cuda.is_available() and not machine.no_cuda
    local_rank = int(os.environ.get("LOCAL_RANK", machine.local_rank))  # launchers set it, even with a flag
    if local_rank == -1:
        return (torch.device("cuda"), torch.cuda.device_count()) if use_cuda else (torch.device("cpu"), 0)
    if "RANK" not in os.environ:
        raise ValueError("--local_rank is for torch.distributed.launch; start several processes with torchrun")
    device = torch.device("cpu")
    if use_cuda:
        if local_rank >= (count := torch.cuda.device_count()):
            raise ValueError(f"local rank {local_rank} has no GPU: {count} visible; start at most one process per GPU")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # On GPUs, gradients use NCCL; objects and flags use Gloo, so that no GPU has to synchronise.
        backend = "cpu:gloo,cuda:nccl" if use_cuda else "gloo"
        timeout = timedelta(seconds=machine.ddp_timeout)
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and os.environ["GROUP_WORLD_SIZE"] == "1":
            place, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            store = _store_of_this_start(timeout)
            dist.init_process_group(backend, timeout=timeout, store=store, rank=place, world_size=size)
        else:
            dist.init_process_group(backend, timeout=timeout)
    return device, int(use_cuda)


def _store_of_this_start(timeout: timedelta) -> PrefixStore:
    """Make the rendezvous store of processes that torchrun restarted on one machine.

    The original store still holds the addresses of dead processes (https://github.com/pytorch/pytorch/issues/135712).
    Launchers on several machines count restarts differently, so this does not work for them.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=timeout)
    return PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)


def leave_process_group() -> None:
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # an unreachable DDP wrapper in a reference cycle keeps threads alive, which can crash the exit
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, which downloads, builds caches, logs and writes."""
    return rank() == 0


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block on rank 0 first, then on the other ranks.

    Raises:
        MainProcessError: on the other ranks, if rank 0 failed.
    """
    if not is_main():
        _from_main()
    with _failures_told():
        yield
    if is_main():
        _from_main()


def run_on_main(action: Callable[[], Result]) -> Result:
    """Call ``action`` on rank 0 while the others wait, and return its result on all ranks.

    Raises:
        MainProcessError: on the other ranks, if rank 0 failed.
    """
    if not is_main():
        return _from_main()
    with _failures_told():
        result = action()
    return _from_main(result)


def _from_main(result: Any = None, failure: str = "") -> Any:
    """Broadcast a result or failure of rank 0; the other ranks raise on failure."""
    said = [result, failure]
    if world_size() > 1:
        dist.broadcast_object_list(said, src=0)
    if said[1] and not is_main():
        raise MainProcessError(f"rank 0 failed: {said[1]}")
    return said[0]


@contextmanager
def _failures_told() -> Iterator[None]:
    """Tell the other ranks if rank 0 fails."""
    try:
        yield
    except BaseException as error:
        if is_main():
            with suppress(RuntimeError):  # peer already exited; nothing to notify
                _from_main(failure=f"{type(error).__name__}: {error}")
        raise


def wait_for_the_end_of_main() -> None:
    """Wait until rank 0 exits: launchers kill all processes once one exits, and rank 0 must report its error first."""
    with suppress(RuntimeError):  # the connection is closed
        any_rank(False)


def send_from_main(tensors: Iterable[Tensor]) -> None:
    """Broadcast tensors from rank 0, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank. Uses the CPU, so that GPUs are not synchronised."""
    flags = torch.tensor(flag, dtype=torch.uint8)
    if world_size() > 1:
        dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def gather_to_main(one: Any) -> list[Any]:
    """Gather one object per rank on rank 0, by rank; the others get an empty list."""
    if world_size() == 1:
        return [one]
    gathered: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(one, gathered)
    return gathered or []


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


EXIT_CODE = 75  # EX_TEMPFAIL in sysexits.h: the scheduler may restart the job
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has no USR1


class Interrupted(SystemExit):
    """Training was stopped by a signal, after writing a checkpoint."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class Interruption:
    """Records whether a stop signal was received."""

    def __init__(self) -> None:
        self._signal = 0

    def notice(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self._signal = number

    def listen(self) -> None:
        """Install the signal handlers; Python allows this in the main thread only, elsewhere it does nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self.notice)

    def seen_by_any(self) -> bool:
        """Whether any rank received a signal. All ranks must call it at the same point."""
        seen = any_rank(self._signal != 0)
        if seen and self._signal:
            logger.warning("%s: ending this step, then writing a checkpoint", signal.Signals(self._signal).name)
        return seen


@contextmanager
def watch_for_interruption() -> Iterator[Interruption]:
    """Record SIGTERM and SIGUSR1 instead of being killed by them. Has no effect outside the main thread."""
    interruption, handlers = Interruption(), {number: signal.getsignal(number) for number in _SIGNALS}
    interruption.listen()
    try:
        yield interruption
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
