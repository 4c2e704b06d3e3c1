"""Connections of a service: none is held for ever, and a crowd of idle ones does not keep others out."""

import asyncio
import json
import logging
import os
import sys
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_SAME_MESSAGES = 10  # from one place of the code within `_PERIOD`
_PERIOD = 60.0  # seconds


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a bound on open connections and on the time that each may take.

    Beyond ``max_connections`` the connection that has waited longest for a request is closed, so a new client is
    always heard as long as fewer requests than that are being answered.

    Args:
        max_connections: open at a time.
        read_timeout: seconds for the head of a request to arrive, from the opening of the connection or the previous
            answer; the connection is then closed.
        answer_timeout: seconds from there until the answer has been handed over.
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
            protocols = [each for each in self.connections if isinstance(each, BoundedProtocol) and not each._is_busy]
            oldest = min(protocols, key=lambda each: each._waiting_since)
            self.connections.discard(oldest)  # now, so that the next one does not choose it again
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
        self._close_after(self._read_timeout)  # first, for a pipelined request may follow at once
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn does, in JSON, and only where an answer can still be sent."""
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
    """How many files, connections among them, this process may open (``ulimit -n``)."""
    limit = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return limit if limit > 0 else sys.maxsize


class RateLimit(logging.Filter):
    """Lets ten messages a minute pass from each place of the code, and tells how many it held back."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}  # by place: start of the period, messages in it

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), time.monotonic()
        start, count = self._counts.get(place, (now, 0))
        held_back = 0
        if now - start > _PERIOD:
            start, count, held_back = now, 0, max(0, count - _SAME_MESSAGES)
        self._counts[place] = start, count + 1
        if held_back:
            record.msg, record.args = f"{record.getMessage()} [{held_back} similar messages were left out]", ()
        return count < _SAME_MESSAGES
