"""The body of a request: JSON as RFC 8259 has it, with one text or several."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from starlette.exceptions import HTTPException

from processors.examples import LONE_SURROGATE

_MOST_DIGITS = 300  # of a whole number; what a double can hold
_MOST_FAULTS = 10  # that an answer names
_SHAPE = 'give either "text", a string, or "texts", a list of strings'


class RequestedTexts(NamedTuple):
    """The texts of a request, and whether they came as a list."""

    texts: list[str]
    is_list: bool


def request_schema(max_texts: int, max_characters: int) -> dict[str, Any]:
    """The JSON schema of what `requested_texts` takes."""
    text = {"type": "string", "maxLength": max_characters}
    return {
        "type": "object",
        "properties": {"text": text, "texts": {"type": "array", "items": text, "maxItems": max_texts}},
        "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
        "additionalProperties": False,
    }


def requested_texts(content_type: str, body: bytes, max_texts: int, max_characters: int) -> RequestedTexts:
    """The texts of a request.

    Raises:
        HTTPException: 415 for another media type, 400 for what is not JSON in UTF-8, 422 for another shape or for
            a lone surrogate, 413 beyond the limits.
    """
    if not re.fullmatch(r'application/json\s*(;\s*charset="?utf-8"?\s*)?', content_type.strip(), re.IGNORECASE):
        given = f"not {_shortened(content_type)}" if content_type else "which is missing"
        raise HTTPException(415, f"send JSON in UTF-8, with the header Content-Type: application/json, {given}")
    request = _parsed(body)
    if not isinstance(request, dict):
        raise HTTPException(422, _SHAPE)
    faults = [f"{_shortened(name)}: there is no such field" for name in request if name not in ("text", "texts")]
    if len(request.keys() & {"text", "texts"}) != 1:
        raise HTTPException(422, _listed([*faults, _SHAPE]))
    is_list = "texts" in request
    texts = request["texts"] if is_list else [request["text"]]
    if not isinstance(texts, list):
        raise HTTPException(422, _listed([*faults, "texts: must be a list of strings"]))
    for index, text in enumerate(texts):
        field = f"texts.{index}" if is_list else "text"
        if not isinstance(text, str):
            faults.append(f"{field}: must be a string")
        elif lone := LONE_SURROGATE.search(text):
            faults.append(f"{field}: a lone surrogate at character {lone.start()}, which UTF-8 cannot express")
    if faults:
        raise HTTPException(422, _listed(faults))
    if len(texts) > max_texts:
        raise HTTPException(413, f"{len(texts)} texts; a request has at most {max_texts}")
    if (characters := sum(map(len, texts))) > max_characters:
        raise HTTPException(413, f"{characters} characters; a request has at most {max_characters}")
    return RequestedTexts(texts, is_list)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(
            body.decode("utf-8-sig"), object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos}"
    except ValueError as error:
        reason = str(error)
    raise HTTPException(400, f"not JSON in UTF-8: {reason}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {_shortened(name)} appears twice in an object")
        found[name] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _listed(faults: Iterable[str]) -> str:
    """The first faults, and the number of the others."""
    first, others = list(faults)[:_MOST_FAULTS], len(list(faults)) - _MOST_FAULTS
    return "; ".join(first) + (f"; and {others} more" if others > 0 else "")


def _shortened(name: str) -> str:
    """A name of the client's in quotes, in characters that every answer can hold."""
    return json.dumps(name if len(name) <= 40 else f"{name[:40]}...")


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
