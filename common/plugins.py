"""What users add by name, ``module:name``: their modules are imported only where a flag or a call names them."""

import importlib
from typing import Any


def imported(name: str, flag: str) -> Any:
    """The object ``name`` of ``module:name``.

    Args:
        flag: for messages.

    Raises:
        ValueError: there is no such module or object.
    """
    module_name, _, object_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), object_name)
    except (ImportError, AttributeError, ValueError) as error:
        advice = "name it as module:name, with the module beside the script or in a folder of PYTHONPATH"
        raise ValueError(f"{flag} {name}: {error}; {advice}") from error
