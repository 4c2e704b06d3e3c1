"""Packages that some callbacks need and not everybody has."""

import importlib
from types import ModuleType


def import_optional(package: str, flag: str) -> ModuleType:
    """The package.

    Raises:
        ValueError: it is not installed; the flag asked for it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{flag}: the package {package} cannot be imported ({error}); pip install {package}"
        ) from error
