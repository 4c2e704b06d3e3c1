"""A predictor as a web service: ``POST /predict`` and ``GET /health``, with limits, and errors as JSON."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from inference.formats import json_entities
from inference.limits import RequestLimits
from inference.predictor import FoundEntity, NerPredictor
from inference.requests import RequestBatcher, request_schema, requested_texts

_BYTES_A_CHARACTER = 12  # as JSON may escape it: two surrogates of six characters
_BYTES_A_TEXT = 64  # quotes, comma and white space around it


@dataclass(frozen=True)
class ServiceLimits:
    """What each process of the service takes at most.

    Args:
        max_characters, max_texts: of a request.
        max_requests: held at a time.
        read_timeout: seconds for the head of a request to arrive, and again for its body.
        timeout: seconds for a request.
        max_batch_size: texts computed together.
        batch_timeout: seconds that a text waits for others.
    """

    max_characters: int = 20_000
    max_texts: int = 128
    max_requests: int = 256
    read_timeout: float = 10.0
    timeout: float = 30.0
    max_batch_size: int = 64
    batch_timeout: float = 0.005

    @property
    def max_bytes(self) -> int:
        """Of a request's body."""
        return _BYTES_A_CHARACTER * self.max_characters + _BYTES_A_TEXT * (1 + self.max_texts)


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
    400: {"description": "Not a valid HTTP request, or not JSON in UTF-8"},
    408: {"description": "The body did not arrive in time"},
    413: {"description": "More bytes, characters or texts than a request may have"},
    415: {"description": "The content type is not application/json"},
    422: {"description": "Neither one text nor several, or a lone surrogate in a text"},
    500: {"description": "The service failed; its log tells why"},
    503: {
        "description": "Too many requests at a time; try again",
        "headers": {"Retry-After": {"schema": {"type": "string"}}},
    },
    504: {"description": "Not answered in time"},
}


def create_service(predictor: NerPredictor, limits: ServiceLimits) -> FastAPI:
    """The application, for any ASGI server; the model runs in a thread of its own."""
    batcher = RequestBatcher[list[FoundEntity]](predictor, limits.max_batch_size, limits.batch_timeout)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(title="Entities in text", lifespan=lifespan, redirect_slashes=False)
    app.add_middleware(
        RequestLimits,
        max_requests=limits.max_requests,
        max_bytes=limits.max_bytes,
        read_timeout=limits.read_timeout,
        timeout=limits.timeout,
    )
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    errors = {status: {**error, "model": Error} for status, error in _ERRORS.items()}

    @app.head("/health", responses={400: errors[400]})
    @app.get("/health", responses={400: errors[400]})
    async def health() -> Health:
        return Health(status="ok")

    schema = request_schema(limits.max_texts, limits.max_characters)

    @app.post(
        "/predict",
        response_model=None,
        responses={200: {"model": OneResult | Results}, **errors},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    )
    async def predict(request: Request) -> dict[str, Any]:
        """``{"entities": [...]}`` for a text, ``{"results": [{"entities": [...]}, ...]}`` for several."""
        try:
            body = await request.body()
        except ClientDisconnect as error:  # nobody reads the answer
            raise HTTPException(400, "the body ended too early") from error
        content_type = request.headers.get("content-type", "")
        texts, is_list = requested_texts(content_type, body, limits.max_texts, limits.max_characters)
        results = [{"entities": json_entities(entities)} for entities in await batcher.submit(texts)]
        return {"results": results} if is_list else results[0]

    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "the service failed at this request; its log tells more"}, 500)
