"""Texts of many callers, computed together by one worker thread."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Generic, TypeVar

Result = TypeVar("Result")


class RequestBatcher(Generic[Result]):
    """Gathers what arrives while the worker is busy, or within a short time, into one call.

    Args:
        compute: a result for each text; called in one thread only.
        max_batch_size: texts of a call at most.
        batch_timeout: seconds that a text waits for company when the worker is idle.
    """

    def __init__(
        self, compute: Callable[[Sequence[str]], list[Result]], max_batch_size: int, batch_timeout: float
    ) -> None:
        self._compute, self._max_batch_size, self._batch_timeout = compute, max_batch_size, batch_timeout
        self._waiting: dict[asyncio.Future[Result], str] = {}  # in the order of arrival
        self._arrived = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Computes as long as the context lasts; the call that is under way at its end is waited for."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch") as worker:
            task = asyncio.create_task(self._run(worker))
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def submit(self, texts: Sequence[str]) -> list[Result]:
        """The results of some texts, in order. A caller that is cancelled takes back what has not begun."""
        loop = asyncio.get_running_loop()
        results = [loop.create_future() for _ in texts]
        self._waiting.update(zip(results, texts, strict=True))
        self._arrived.set()
        try:
            return await asyncio.gather(*results)
        finally:
            for result in results:
                self._waiting.pop(result, None)

    async def _run(self, worker: ThreadPoolExecutor) -> None:
        while True:
            if batch := await self._next_batch():  # its callers may all have gone
                await self._answer(batch, worker)

    async def _answer(self, batch: dict[asyncio.Future[Result], str], worker: ThreadPoolExecutor) -> None:
        """Computes a batch; where that fails, each text by itself, so that one caller's does not fail the others."""
        try:
            loop = asyncio.get_running_loop()
            computed = await loop.run_in_executor(worker, self._compute, list(batch.values()))
        except Exception as error:
            for result, text in batch.items():
                if result.done():
                    continue
                if len(batch) > 1:
                    await self._answer({result: text}, worker)
                else:
                    result.set_exception(error)
            return
        for result, value in zip(batch, computed, strict=True):
            if not result.done():  # its caller may have gone
                result.set_result(value)

    async def _next_batch(self) -> dict[asyncio.Future[Result], str]:
        await self._wait_for(1)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._batch_timeout):
                await self._wait_for(self._max_batch_size)
        batch = dict(islice(self._waiting.items(), self._max_batch_size))
        for result in batch:
            del self._waiting[result]
        return batch

    async def _wait_for(self, count: int) -> None:
        while len(self._waiting) < count:
            self._arrived.clear()
            await self._arrived.wait()
