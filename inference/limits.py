"""Connections of a service: none is held for ever, and a crowd of idle ones does not keep others out."""

import asyncio
import json
import logging
import os
import sys
import time
from typing import Any

import h11
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
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


_CLOSE = {"Connection": "close"}  # where what follows in the connection cannot be trusted, or may never come


class RequestLimits:
    """Around the routes of a service; requests without a body (GET, HEAD) are not counted.

    Args:
        app: the service.
        max_requests: held at a time, counted before their bodies are read; further ones get 503.
        max_bytes: of a body; the rest of a larger one is not read, and it gets 413.
        read_timeout: seconds for a body to arrive; then it gets 408.
        timeout: seconds for a whole request, its reading included; then it gets 504.
    """

    def __init__(self, app: ASGIApp, max_requests: int, max_bytes: int, read_timeout: float, timeout: float) -> None:
        self._app, self._max_requests, self._max_bytes = app, max_requests, max_bytes
        self._read_timeout, self._timeout = read_timeout, timeout
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            # Proxies disagree where such a request ends, and may take what follows for another one (RFC 9112, 6.3).
            message = "Content-Length and Transfer-Encoding exclude each other"
            await JSONResponse({"error": message}, 400, _CLOSE)(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
        elif self._held >= self._max_requests:
            message = f"{self._max_requests} requests are being answered already; try again"
            await JSONResponse({"error": message}, 503, {"Retry-After": "1"})(scope, receive, send)
        else:
            self._held += 1
            try:
                await self._answer(scope, receive, send)
            finally:
                self._held -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, is_whole, has_started = 0, False, False
        body_until = asyncio.get_running_loop().time() + self._read_timeout

        async def receive_in_time() -> Message:
            nonlocal size, is_whole
            try:
                async with asyncio.timeout_at(None if is_whole else body_until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"no whole body within {self._read_timeout:g} seconds", _CLOSE) from None
            size += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if size > self._max_bytes:
                raise HTTPException(413, f"the body has more than {self._max_bytes} bytes; send less at a time")
            return message

        async def send_noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            async with asyncio.timeout(self._timeout):
                await self._app(scope, receive_in_time, send_noting)
        except TimeoutError:
            if has_started:
                raise
            message = f"not answered within {self._timeout:g} seconds; send less at a time, or try again"
            await JSONResponse({"error": message}, 504)(scope, receive, send)
