"""Load weights with transformers, which handles old names, prefixes and layouts, and check that all fit."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel

_LISTED = 10


def read_model(
    model_class: Any, source: str | Path, config: PreTrainedConfig, new_head: bool = False, cache_dir: str | None = None
) -> Any:
    """Load a model in float32.

    Args:
        model_class: a class, or auto class, with ``from_pretrained``.
        source: a folder, or a name on the Hugging Face hub.
        new_head: whether weights outside the encoder may be missing or have another shape; these are then random, and
            unexpected weights are ignored.
        cache_dir: folder for downloads.

    Raises:
        ValueError: the weights cannot be read, or lists those that are missing, unexpected or have another shape.
    """
    try:
        model, report = model_class.from_pretrained(
            source,
            config=config,
            cache_dir=cache_dir,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # reported below, together with the missing ones
            output_loading_info=True,
        )
    except (RuntimeError, SafetensorError, UnpicklingError, EOFError) as error:
        raise ValueError(f"the weights of {source} cannot be read: {error}") from error
    encoder = f"{model.base_model_prefix}."

    def may_be_new(name: str) -> bool:
        return new_head and (not name.startswith(encoder) or ".pooler." in name)

    faults = {
        "missing": [name for name in sorted(report["missing_keys"]) if not may_be_new(name)],
        "unexpected": [] if new_head else sorted(report["unexpected_keys"]),
        "of another shape": [
            f"{name} is {tuple(found)}, not {tuple(expected)}"
            for name, found, expected in sorted(report["mismatched_keys"])
            if not may_be_new(name)
        ],
    }
    if any(faults.values()):
        described = "; ".join(f"{kind}: {_listed(names)}" for kind, names in faults.items() if names)
        raise ValueError(f"the weights of {source} do not fit {type(model).__name__} with its config ({described})")
    return model


def restore_weights(model: PreTrainedModel, folder: Path) -> None:
    """Load the weights of a folder that holds the same model into ``model``, on its device.

    Raises:
        ValueError: see `read_model`.
    """
    model.load_state_dict(read_model(type(model), folder, model.config).state_dict())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
