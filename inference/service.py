"""A predictor as a web service: ``POST /predict`` and ``GET /health``; errors are JSON."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from common.options import option
from inference.formats import json_entities
from inference.predictor import FoundEntity, NerPredictor
from processors.examples import LONE_SURROGATE

_BYTES_PER_CHARACTER = 12  # the longest JSON escape: two surrogates of six characters
_BYTES_PER_TEXT = 64  # quotes, comma and white space around it
_FAULTS_SHOWN = 10
_SECONDS: dict[str, Any] = {"at_least": 0.01, "at_most": 86_400}
_CLOSE = {"Connection": "close"}  # if the rest of the connection cannot be trusted, or may never arrive


@dataclass(frozen=True)
class ServiceLimits:
    """Limits of each process of the service."""

    max_characters: int = option(20_000, "maximum characters per request (413)", at_least=1, at_most=100_000_000)
    max_texts: int = option(128, "maximum texts per request (413)", at_least=1, at_most=1_000_000)
    max_requests: int = option(  # counted before their bodies are read
        256, "maximum requests in progress per process (503)", at_least=1, at_most=100_000
    )
    read_timeout: float = option(
        10.0, "seconds for the head of a request to arrive, and again for its body (408)", **_SECONDS
    )
    timeout: float = option(30.0, "seconds for a whole request (504)", **_SECONDS)
    max_batch_size: int = option(64, "texts per batch", at_least=1, at_most=100_000)
    batch_timeout: float = option(0.005, "seconds that a text waits for a batch to fill", at_least=0, at_most=60)

    @property
    def max_bytes(self) -> int:
        """Maximum size of a request body, in bytes."""
        return _BYTES_PER_CHARACTER * self.max_characters + _BYTES_PER_TEXT * (1 + self.max_texts)


def _without_lone_surrogates(text: str) -> str:
    if lone := LONE_SURROGATE.search(text):
        raise ValueError(f"a lone surrogate at character {lone.start()}, which UTF-8 cannot encode")
    return text


Text = Annotated[str, AfterValidator(_without_lone_surrogates)]


class TextsRequest(BaseModel):
    """One text or several."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["texts"]}]},
    )
    text: Text = ""
    texts: list[Text] = []

    @model_validator(mode="before")
    @classmethod
    def _require_one_field(cls, request: object) -> object:
        if not isinstance(request, dict) or len(request.keys() & {"text", "texts"}) != 1:
            raise ValueError('give either "text", a string, or "texts", a list of strings')
        return request


class Health(BaseModel):
    status: str


class Entity(BaseModel):
    type: str
    start: int
    end: int
    surface: str
    confidence: float


class OneResult(BaseModel):
    entities: list[Entity]


class Results(BaseModel):
    results: list[OneResult]


class Error(BaseModel):
    error: str


_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "Invalid HTTP, or a body that is not JSON in UTF-8"},
    408: {"description": "The body did not arrive in time"},
    413: {"description": "Too many bytes, characters or texts"},
    415: {"description": "The content type is not application/json"},
    422: {"description": "Neither one text nor several, or a lone surrogate in a text"},
    500: {"description": "Internal error; see the log of the service"},
    503: {
        "description": "Too many requests in progress; try again",
        "headers": {"Retry-After": {"schema": {"type": "string"}}},
    },
    504: {"description": "The answer took too long"},
}


def create_service(predictor: NerPredictor, limits: ServiceLimits) -> FastAPI:
    """The application, for any ASGI server; the model runs in a thread of its own."""
    batcher = RequestBatcher[list[FoundEntity]](predictor, limits.max_batch_size, limits.batch_timeout)
    slots = asyncio.Semaphore(limits.max_requests)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(
        title="Entities in text", lifespan=lifespan, redirect_slashes=False, dependencies=[Depends(_check_length)]
    )
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    errors = {status: {**error, "model": Error} for status, error in _ERRORS.items()}

    @app.head("/health", responses={400: errors[400]})
    @app.get("/health", responses={400: errors[400]})
    async def health() -> Health:
        return Health(status="ok")

    @app.post(
        "/predict",
        response_model=None,
        responses={200: {"model": OneResult | Results}, **errors},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": TextsRequest.model_json_schema()}},
            }
        },
    )
    async def predict(request: Request) -> dict[str, Any]:
        """``{"entities": [...]}`` for a text, ``{"results": [{"entities": [...]}, ...]}`` for several."""
        if slots.locked():
            raise HTTPException(503, f"{limits.max_requests} requests in progress; try again", {"Retry-After": "1"})
        try:
            async with slots, asyncio.timeout(limits.timeout):
                body = await _read_body(request, limits)
                texts, is_list = parse_request(request.headers.get("content-type", ""), body, limits)
                found = await batcher.submit(texts)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {limits.timeout:g} seconds; send less, or try again") from None
        results = [{"entities": json_entities(entities)} for entities in found]
        return {"results": results} if is_list else results[0]

    return app


async def _check_length(request: Request) -> None:
    if {"content-length", "transfer-encoding"} <= set(request.headers):
        # Proxies disagree about where such a request ends, and may read the rest as another one (RFC 9112, 6.3).
        raise HTTPException(400, "Content-Length and Transfer-Encoding exclude each other", _CLOSE)


async def _read_body(request: Request, limits: ServiceLimits) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(limits.read_timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_bytes:
                    raise HTTPException(413, f"the body has more than {limits.max_bytes} bytes; send less at a time")
    except TimeoutError:
        raise HTTPException(408, f"no complete body within {limits.read_timeout:g} seconds", _CLOSE) from None
    except ClientDisconnect:  # nobody reads the answer
        raise HTTPException(400, "the body is incomplete") from None
    return bytes(body)


def parse_request(content_type: str, body: bytes, limits: ServiceLimits) -> tuple[list[str], bool]:
    """The texts in the body of a request, and whether they came as a list.

    Raises:
        HTTPException: 415 for another media type, 400 if the body is not JSON in UTF-8, 422 if it has another shape or
            a lone surrogate, 413 beyond the limits.
    """
    if not re.fullmatch(r'application/json\s*(;\s*charset="?utf-8"?\s*)?', content_type.strip(), re.IGNORECASE):
        raise HTTPException(415, "send JSON in UTF-8 with the header Content-Type: application/json")
    try:
        request = TextsRequest.model_validate(json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique_names))
    except ValidationError as error:
        faults = [
            ": ".join([*filter(None, [".".join(map(str, fault["loc"]))]), fault["msg"].removeprefix("Value error, ")])
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        more = [f"and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
        raise HTTPException(422, "; ".join([*faults[:_FAULTS_SHOWN], *more])) from None
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"not JSON in UTF-8: {error}") from None
    is_list = "texts" in request.model_fields_set
    texts = request.texts if is_list else [request.text]
    if len(texts) > limits.max_texts:
        raise HTTPException(413, f"{len(texts)} texts; a request has at most {limits.max_texts}")
    if (characters := sum(map(len, texts))) > limits.max_characters:
        raise HTTPException(413, f"{characters} characters; a request has at most {limits.max_characters}")
    return texts, is_list


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name appears twice in an object")
    return found


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "internal error; see the log of the service"}, 500)


Result = TypeVar("Result")


class RequestBatcher(Generic[Result]):
    """Compute texts of concurrent requests in common batches.

    Args:
        compute: returns a result for each text; called in one thread only.
        max_batch_size: texts per call.
        batch_timeout: seconds that a text waits for others while the worker is idle.
    """

    def __init__(
        self, compute: Callable[[Sequence[str]], list[Result]], max_batch_size: int, batch_timeout: float
    ) -> None:
        self._compute, self._max_batch_size, self._batch_timeout = compute, max_batch_size, batch_timeout
        self._waiting = asyncio.Queue[tuple[asyncio.Future[Result], str]]()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute while the context lasts; wait for the last call at its end."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch") as worker:
            task = asyncio.create_task(self._run(worker))
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def submit(self, texts: Sequence[str]) -> list[Result]:
        """The results of texts, in order. If the caller is cancelled, texts that are still waiting are dropped."""
        loop = asyncio.get_running_loop()
        results = [loop.create_future() for _ in texts]
        for item in zip(results, texts, strict=True):
            self._waiting.put_nowait(item)
        try:
            return await asyncio.gather(*results)
        finally:
            for result in results:
                result.cancel()

    async def _run(self, worker: ThreadPoolExecutor) -> None:
        while True:
            if batch := await self._next_batch():  # empty if all callers were cancelled
                await self._answer(batch, worker)

    async def _answer(self, batch: dict[asyncio.Future[Result], str], worker: ThreadPoolExecutor) -> None:
        """Compute a batch; if that fails, each text by itself, so that one bad text fails only its own request."""
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
            if not result.done():  # the caller may have been cancelled
                result.set_result(value)

    async def _next_batch(self) -> dict[asyncio.Future[Result], str]:
        """Texts that are still wanted, after a pause in which others may arrive."""
        batch = [await self._waiting.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._batch_timeout):
                while len(batch) < self._max_batch_size:
                    batch.append(await self._waiting.get())
        return {result: text for result, text in batch if not result.done()}
