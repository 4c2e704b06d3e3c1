"""Requests beyond what a service can hold are refused, and those that take too long are ended."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
