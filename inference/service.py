"""A predictor as a web service: ``POST /predict`` and ``GET /health``; errors are JSON."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from starlette.exceptions import HTTPException as AnyHTTPException

from common.options import option
from inference.annotation_routes import AnnotationTools, Respond
from inference.formats import json_entities
from inference.predictor import FoundEntity, NerPredictor
from inference.request_bodies import CLOSE, parse_json, read_body, validated
from processors.examples import LONE_SURROGATE

_BYTES_PER_CHARACTER = 12  # the longest JSON escape: two surrogates of six characters
_BYTES_PER_TEXT = 64  # quotes, comma and white space around it
_SECONDS: dict[str, Any] = {"at_least": 0.01, "at_most": 86_400}


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

    @property
    def max_tool_bytes(self) -> int:
        """The same for annotation tools, which send the annotations and the set-up of the project along."""
        return 2**21 + 8 * self.max_bytes


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

    async def answer(request: Request, max_bytes: int, respond: Respond) -> dict[str, Any]:
        if slots.locked():
            raise HTTPException(503, f"{limits.max_requests} requests in progress; try again", {"Retry-After": "1"})
        try:
            async with slots, asyncio.timeout(limits.timeout):
                body = await read_body(request, max_bytes, limits.read_timeout)
                return await respond(parse_json(request.headers.get("content-type", ""), body))
        except TimeoutError:
            raise HTTPException(504, f"no answer within {limits.timeout:g} seconds; send less, or try again") from None

    async def find(texts: Sequence[str]) -> list[list[FoundEntity]]:
        return await batcher.submit(checked_texts(texts, limits))

    async def predict_texts(content: Any) -> dict[str, Any]:
        asked = validated(TextsRequest, content)
        is_list = "texts" in asked.model_fields_set
        found = await find(asked.texts if is_list else [asked.text])
        results = [{"entities": json_entities(entities)} for entities in found]
        return {"results": results} if is_list else results[0]

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
        return await answer(request, limits.max_bytes, predict_texts)

    tools = AnnotationTools(answer, find, limits.max_tool_bytes, predictor.model.name_or_path)
    app.include_router(tools.router(errors))
    return app


async def _check_length(request: Request) -> None:
    if {"content-length", "transfer-encoding"} <= set(request.headers):
        # Proxies disagree about where such a request ends, and may read the rest as another one (RFC 9112, 6.3).
        raise HTTPException(400, "Content-Length and Transfer-Encoding exclude each other", CLOSE)


def checked_texts(texts: Sequence[str], limits: ServiceLimits) -> list[str]:
    """The texts of a request.

    Raises:
        HTTPException: 413 beyond the limits.
    """
    if len(texts) > limits.max_texts:
        raise HTTPException(413, f"{len(texts)} texts; a request has at most {limits.max_texts}")
    if (characters := sum(map(len, texts))) > limits.max_characters:
        raise HTTPException(413, f"{characters} characters; a request has at most {limits.max_characters}")
    return list(texts)


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
