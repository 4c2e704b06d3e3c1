"""Find and check the checkpoint to resume from, last.ckpt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.run_files import RunFolder
from tools.checkpoint import refuse_kept_options

_FIXED = ("task_name", "tag_column", "markup", "casing", "train_max_seq_length", "averaging")


def checkpoint_file(named: str, run: RunFolder) -> Path | None:
    """Find the file that ``--resume_from_checkpoint`` names; for ``auto``, the one of the run, if it exists.

    Raises:
        ValueError: the named file does not exist.
    """
    if named in ("", "auto"):
        return run.last_lightning_checkpoint if named and run.last_lightning_checkpoint.is_file() else None
    if not Path(named).is_file():
        raise ValueError(f"--resume_from_checkpoint {named}: no such file")
    return Path(named)


def check_checkpoint(
    checkpoint: Mapping[str, Any], settings: Mapping[str, Any], model: str, shapes: Mapping[str, Any], source: str
) -> None:
    """Raise a ValueError if a checkpoint has another model, or settings that the optimiser state would override.

    Args:
        settings: settings of this run, from `tools.settings.Settings.flat`.
        model: description of the head and its labels.
        shapes: shapes of this run's weights, by name.
        source: name of the checkpoint, for messages.
    """
    before = checkpoint["settings"]
    for name in _FIXED:
        if before.get(name, settings[name]) != settings[name]:
            raise ValueError(
                f"{source} was trained with --{name} {before[name]}, not {settings[name]}: use the same value"
            )
    if checkpoint["model"] != model:
        raise ValueError(f"{source} holds {checkpoint['model']}, not {model}: use the same --head and labels")
    there = {name: tuple(weight.shape) for name, weight in checkpoint["state_dict"].items()}
    misfits = sorted(name for name in there | dict(shapes) if there.get(name) != shapes.get(name))
    if misfits:
        found = f"{misfits[0]} is {there.get(misfits[0])} in the checkpoint and {shapes.get(misfits[0])} in this run"
        raise ValueError(f"{source} has another encoder ({found}): name it with --model_name_or_path")
    refuse_kept_options(settings, before, source)
