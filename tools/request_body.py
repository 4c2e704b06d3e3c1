"""The body of a request: JSON as RFC 8259 has it, with one text or several."""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

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
