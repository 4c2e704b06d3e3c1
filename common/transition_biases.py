"""Biases for kinds of transitions between tags: scores that a decoder adds to those of the tags.

They have the names, the meaning and the file of OpenAI's privacy-filter, whose decoder (``opf``) reads them from
``viterbi_calibration.json``. It knows BIOES; here the kinds are defined by entities, so that they fit any tag scheme.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KINDS = (
    "background_stay",  # from O to O
    "background_to_start",  # from O to the first word of an entity
    "inside_to_continue",  # to a further word of the entity that is not marked as its last
    "inside_to_end",  # to the last word of the entity, if the scheme marks it
    "end_to_background",  # from the last word of an entity to O
    "end_to_start",  # from the last word of an entity to the first of the next
)
_PREFIX = "transition_bias_"


def read_biases(path: str | Path) -> dict[str, float]:
    """Read a file of biases.

    Raises:
        ValueError: the file does not hold exactly these biases as numbers.
    """
    expected = {f"{_PREFIX}{kind}" for kind in KINDS}
    try:
        content: Any = json.loads(Path(path).read_text("utf-8"))
        found = content["operating_points"]["default"]["biases"]
        if set(found) != expected:
            wrong = sorted(expected ^ set(found))
            raise ValueError(f"operating_points.default.biases must have exactly the six biases; not so: {wrong}")
        biases = {kind: found[f"{_PREFIX}{kind}"] for kind in KINDS}
        if bad := [kind for kind, bias in biases.items() if type(bias) not in (int, float) or not math.isfinite(bias)]:
            raise ValueError(f"{', '.join(bad)} must be numbers")
    except OSError as error:
        raise ValueError(f"--transition_biases {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f"has no entry {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"--transition_biases {path}: {reason}") from error
    return {kind: float(bias) for kind, bias in biases.items()}


def biases_file(biases: Mapping[str, float]) -> dict[str, Any]:
    """Content of a file of biases, as JSON."""
    named = {f"{_PREFIX}{kind}": float(biases.get(kind, 0.0)) for kind in KINDS}
    return {"operating_points": {"default": {"biases": named}}}
