"""Requests beyond what a service can hold are refused, and those that take too long are ended."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestLimits:
    """Around the routes of a service; requests that carry nothing (GET) pass freely.

    Args:
        app: the service.
        max_requests: held at a time, counted before their bodies are read; further ones get 503.
        max_bytes: of a body; the rest of a larger one is not read, and it gets 413.
        timeout: seconds for a whole request, its reading included; then it gets 504.
    """

    def __init__(self, app: ASGIApp, max_requests: int, max_bytes: int, timeout: float) -> None:
        self._app, self._max_requests, self._max_bytes, self._timeout = app, max_requests, max_bytes, timeout
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if self._held >= self._max_requests:
            message = f"{self._max_requests} requests are being answered already; try again"
            await JSONResponse({"error": message}, 503, {"Retry-After": "1"})(scope, receive, send)
            return
        size, has_started = 0, False

        async def receive_counting() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                raise HTTPException(413, f"the body has more than {self._max_bytes} bytes; send less at a time")
            return message

        async def send_noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        self._held += 1
        try:
            async with asyncio.timeout(self._timeout):
                await self._app(scope, receive_counting, send_noting)
        except TimeoutError:
            if has_started:
                raise
            message = f"not answered within {self._timeout:g} seconds; send less at a time, or try again"
            await JSONResponse({"error": message}, 504)(scope, receive, send)
        finally:
            self._held -= 1
