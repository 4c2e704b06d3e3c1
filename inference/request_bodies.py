"""Reading the body of a request: within limits, as JSON, in the expected shape; faults become HTTP errors."""

import asyncio
import json
import re
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

_FAULTS_SHOWN = 10
CLOSE = {"Connection": "close"}  # if the rest of the connection cannot be trusted, or may never arrive
Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request, max_bytes: int, timeout: float) -> bytes:
    """Read a body.

    Raises:
        HTTPException: 413 for more bytes, 408 after ``timeout`` seconds, 400 if the client is gone.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise HTTPException(413, f"the body has more than {max_bytes} bytes; send less at a time")
    except TimeoutError:
        raise HTTPException(408, f"no complete body within {timeout:g} seconds", CLOSE) from None
    except ClientDisconnect:  # nobody reads the answer
        raise HTTPException(400, "the body is incomplete") from None
    return bytes(body)


def parse_json(content_type: str, body: bytes) -> Any:
    """Parse a body as JSON in UTF-8.

    Raises:
        HTTPException: 415 for another media type, 400 if it is anything else.
    """
    if not re.fullmatch(r'application/json\s*(;\s*charset="?utf-8"?\s*)?', content_type.strip(), re.IGNORECASE):
        raise HTTPException(415, "send JSON in UTF-8 with the header Content-Type: application/json")
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique_names)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"not JSON in UTF-8: {error}") from None


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name appears twice in an object")
    return found


def validated(model: type[Model], content: Any) -> Model:
    """Check the shape of a request.

    Raises:
        HTTPException: 422 with the first faults.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = [
            ": ".join([*filter(None, [".".join(map(str, fault["loc"]))]), fault["msg"].removeprefix("Value error, ")])
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        more = [f"and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
        raise HTTPException(422, "; ".join([*faults[:_FAULTS_SHOWN], *more])) from None
