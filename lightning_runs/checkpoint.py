"""The checkpoint to resume from, last.ckpt: how it is written, found and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.run_files import RunFolder
from tools.checkpoint import refuse_kept_options

_FIXED = ("task_name", "tag_column", "markup", "casing", "train_max_seq_length", "averaging")


def checkpoint_file(named: str, run: RunFolder) -> Path | None:
    """The file that ``--resume_from_checkpoint`` names; for ``auto`` that of the run, if there is one.

    Raises:
        ValueError: the named file does not exist.
    """
    if named in ("", "auto"):
        return run.last_lightning_checkpoint if named and run.last_lightning_checkpoint.is_file() else None
    if not Path(named).is_file():
        raise ValueError(f"--resume_from_checkpoint {named}: there is no such file")
    return Path(named)


def check_checkpoint(
    checkpoint: Mapping[str, Any], settings: Mapping[str, Any], model: str, shapes: Mapping[str, Any], source: str
) -> None:
    """Raises a ValueError where a checkpoint is of another model, or of settings that its optimiser would overrule.

    Args:
        settings: those of this run, as `tools.settings.Settings.flat` gives them.
        model: describes the head and its labels.
        shapes: of the weights of this run's model.
        source: names the checkpoint.
    """
    before = checkpoint["settings"]
    for name in _FIXED:
        if before.get(name, settings[name]) != settings[name]:
            raise ValueError(f"{source} was trained with --{name} {before[name]}, not {settings[name]}: give the same")
    if checkpoint["model"] != model:
        raise ValueError(f"{source} holds {checkpoint['model']}, not {model}: give the same --head and labels")
    there = {name: tuple(weight.shape) for name, weight in checkpoint["state_dict"].items()}
    misfits = sorted(name for name in there | dict(shapes) if there.get(name) != shapes.get(name))
    if misfits:
        found = f"{misfits[0]} is {there.get(misfits[0])} there and {shapes.get(misfits[0])} here"
        raise ValueError(f"{source} is of another encoder ({found}): name it in --model_name_or_path")
    refuse_kept_options(settings, before, source)
