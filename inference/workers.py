"""Several processes of a service: replaced when they end, stopped together.

Not uvicorn's supervisor: it asks its processes by pipes whether they are alive, and while one of them imports torch, or
has died before it could answer, the supervisor waits and neither stops nor replaces any.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

logger = logging.getLogger(__name__)
CANNOT_START = 3  # exit status of a process that would fail again if it were started again


def run_workers(count: int, target: Callable[..., None], *args: Any) -> None:
    """Runs ``target(*args)`` in processes until SIGTERM or Ctrl-C, then stops them by SIGTERM and waits for them.

    A process that ends is replaced. If its status is `CANNOT_START`, all are stopped and SystemExit is raised.
    """

    def start() -> SpawnProcess:
        process = get_context("spawn").Process(target=_run_worker, args=(target, *args))
        process.start()
        return process

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes: list[SpawnProcess] = []
    try:
        processes += (start() for _ in range(count))
        while True:
            wait([process.sentinel for process in processes])
            for index, process in enumerate(processes):
                if process.exitcode == CANNOT_START:
                    sys.exit(f"process {process.pid} cannot start: see its message above")
                if process.exitcode is not None:
                    logger.warning("Process %s ended with status %s: starting another", process.pid, process.exitcode)
                    processes[index] = start()
    except KeyboardInterrupt:
        logger.info("Stopping %d processes", count)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _run_worker(target: Callable[..., None], *args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the parent stops the others
    threading.Thread(target=_end_after_parent, daemon=True).start()
    target(*args)


def _end_after_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
