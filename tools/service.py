"""A predictor as a web service: ``POST /predict`` and ``GET /health``, with limits, and errors as JSON."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException as AnyHTTPException

from tools.prediction_formats import json_entities
from tools.predictor import FoundEntity, NerPredictor
from tools.request_batcher import RequestBatcher
from tools.request_limits import RequestLimits

_BYTES_A_CHARACTER = 12  # as JSON may escape it: two surrogates of six characters
_BYTES_A_TEXT = 64  # quotes, comma and white space around it


@dataclass(frozen=True)
class ServiceLimits:
    """What the service takes at most.

    Args:
        max_characters, max_texts: of a request.
        max_requests: held at a time.
        timeout: seconds for a request.
        max_batch_size: texts computed together.
        batch_timeout: seconds that a text waits for others.
    """

    max_characters: int = 20_000
    max_texts: int = 128
    max_requests: int = 256
    timeout: float = 30.0
    max_batch_size: int = 64
    batch_timeout: float = 0.005

    @property
    def max_bytes(self) -> int:
        """Of a request's body."""
        return _BYTES_A_CHARACTER * self.max_characters + _BYTES_A_TEXT * (1 + self.max_texts)


class PredictRequest(BaseModel):
    """Either one text or several."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: str | None = None
    texts: list[str] | None = None


def create_service(predictor: NerPredictor, limits: ServiceLimits) -> FastAPI:
    """The application, for any ASGI server; the model runs in a thread of its own."""
    batcher = RequestBatcher[list[FoundEntity]](predictor, limits.max_batch_size, limits.batch_timeout)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(title="Entities in text", lifespan=lifespan)
    app.add_middleware(
        RequestLimits, max_requests=limits.max_requests, max_bytes=limits.max_bytes, timeout=limits.timeout
    )
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(Exception, _failed)

    @app.head("/health")
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(request: PredictRequest) -> dict[str, Any]:
        """``{"entities": [...]}`` for a text, ``{"results": [{"entities": [...]}, ...]}`` for several."""
        texts = _checked_texts(request, limits)
        results = [{"entities": json_entities(entities)} for entities in await batcher.submit(texts)]
        return {"results": results} if request.text is None else results[0]

    return app


def _checked_texts(request: PredictRequest, limits: ServiceLimits) -> list[str]:
    if (request.text is None) == (request.texts is None):
        raise HTTPException(422, 'give either "text", a string, or "texts", a list of strings')
    texts = request.texts if request.text is None else [request.text]
    assert texts is not None
    characters = sum(map(len, texts))
    if len(texts) > limits.max_texts:
        raise HTTPException(413, f"{len(texts)} texts; a request has at most {limits.max_texts}")
    if characters > limits.max_characters:
        raise HTTPException(413, f"{characters} characters; a request has at most {limits.max_characters}")
    if not all(map(_is_unicode, texts)):
        raise HTTPException(422, "a text holds half of a surrogate pair, which is no character")
    return texts


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    reason = f": {error.__cause__}" if error.__cause__ else ""  # of a body that FastAPI cannot parse
    return JSONResponse({"error": f"{error.detail}{reason}"}, error.status_code, error.headers)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        place = errors[0]["loc"][-1]
        return JSONResponse({"error": f"not JSON: {errors[0]['ctx']['error']} at character {place}"}, 400)
    message = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors)
    if "json" not in request.headers.get("content-type", ""):
        message += "; send JSON, with the header Content-Type: application/json"
    return JSONResponse({"error": message}, 422)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "the service failed at this request; its log tells more"}, 500)
