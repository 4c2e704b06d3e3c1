"""User extensions named as ``module:name``; a module is imported only if a flag or call names it."""

import importlib
from typing import Any


def imported(name: str, flag: str) -> Any:
    """Import an object.

    Args:
        name: ``module:object``.
        flag: flag to name in error messages.

    Raises:
        ValueError: the module or object does not exist.
    """
    module_name, _, object_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), object_name)
    except (ImportError, AttributeError, ValueError) as error:
        advice = "write module:name; the module must be next to the script or on PYTHONPATH"
        raise ValueError(f"{flag} {name}: {error}; {advice}") from error
