"""Connections, log and worker processes of the service: what uvicorn does not limit by itself.

uvicorn's ``limit_concurrency`` counts idle connections too, so idle clients would keep others out; it has no timeout
for the head of a request; and its supervisor of several processes blocks while one of them imports torch or has died
before it could answer, and meanwhile neither stops nor replaces any.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)
CANNOT_START = 3  # exit status of a worker that would fail again if it were restarted
_MESSAGES_PER_PERIOD, _PERIOD = 10, 60.0  # of one line of code; seconds


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a limit on open connections and on the time that each may take.

    Beyond ``max_connections`` the connection that has waited longest for a request is closed, so new clients are
    served unless that many requests are in progress.

    Args:
        max_connections: open at the same time.
        read_timeout: seconds for the head of a request to arrive after the connection was opened or the previous
            answer was sent; then the connection is closed.
        answer_timeout: seconds from the head until the answer has been sent.
    """

    def __init__(
        self, *args: Any, max_connections: int, read_timeout: float, answer_timeout: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections, self._read_timeout, self._answer_timeout = max_connections, read_timeout, answer_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._close_after(self._read_timeout)
        if len(self.connections) > self._max_connections:
            idle = [each for each in self.connections if isinstance(each, BoundedProtocol) and not each._is_busy]
            oldest = min(idle, key=lambda each: each._waiting_since)
            self.connections.discard(oldest)  # now, so that it is not chosen again
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and self._is_busy:
            self._close_after(self._answer_timeout)

    def on_response_complete(self) -> None:
        self._close_after(self._read_timeout)  # first: a pipelined request may start at once
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn, but as JSON, and only if an answer can still be sent."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = json.dumps({"error": msg}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting_since = self.loop.time()
        self._timer = self.loop.call_later(seconds, self.transport.abort)


def open_file_limit() -> int:
    """Files, connections included, that this process may have open (``ulimit -n``)."""
    limit = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return limit if limit > 0 else sys.maxsize


class RateLimit(logging.Filter):
    """Let ten messages per minute pass from each line of code, and count those held back."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}  # start of the period, messages in it

    def filter(self, record: logging.LogRecord) -> bool:
        line, now = (record.pathname, record.lineno), time.monotonic()
        start, count = self._counts.get(line, (now, 0))
        held_back = 0
        if now - start > _PERIOD:
            start, count, held_back = now, 0, max(0, count - _MESSAGES_PER_PERIOD)
        self._counts[line] = start, count + 1
        if held_back:
            record.msg, record.args = f"{record.getMessage()} [{held_back} similar messages were held back]", ()
        return count < _MESSAGES_PER_PERIOD


def run_workers(count: int, target: Callable[..., None], *args: Any) -> None:
    """Run ``target(*args)`` in processes until SIGTERM or Ctrl-C, then stop them by SIGTERM and wait for them.

    A process that ends is replaced. If its exit status is `CANNOT_START`, all are stopped and SystemExit is raised.
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
                    sys.exit(f"process {process.pid} cannot start; see its message above")
                if process.exitcode is not None:
                    logger.warning("Process %s exited with status %s: restarting", process.pid, process.exitcode)
                    processes[index] = start()
    except KeyboardInterrupt:
        logger.info("Stopping %d processes", count)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _run_worker(target: Callable[..., None], *args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops the workers
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    target(*args)


def _stop_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
