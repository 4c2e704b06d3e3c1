"""Which checkpoint an interrupted training goes on from."""

import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tools.arguments import NerArguments
from tools.checkpoint import STATE_FILE, WEIGHTS_FILE
from tools.distributed import run_on_main
from tools.run_folder import ARGUMENTS_FILE, checkpoint_folders

logger = logging.getLogger(__name__)
_KEPT_BY_OPTIMIZER = (
    *("optim", "adafactor", "learning_rate", "head_learning_rate", "crf_learning_rate", "layer_decay"),
    *("weight_decay", "adam_epsilon", "freeze_layers", "freeze_embeddings"),
)


def checkpoint_to_resume(args: NerArguments) -> Path | None:
    """The checkpoint that ``--resume_from_checkpoint`` names, the same on all ranks.

    ``auto`` is the latest whole one of ``output_dir``, and none where there is none.

    Raises:
        ValueError: the checkpoint that is named cannot be resumed from, or later ones stand beside it.
    """
    if not args.resume_from_checkpoint:
        return None
    return run_on_main(lambda: _latest(args) if args.resume_from_checkpoint == "auto" else _named(args))


def _latest(args: NerArguments) -> Path | None:
    whole = [folder for folder in _checkpoints(Path(args.output_dir)) if _is_whole(folder)]
    return whole[-1] if whole else None


def _named(args: NerArguments) -> Path:
    folder = Path(args.resume_from_checkpoint)
    if not (folder / STATE_FILE).is_file():
        raise ValueError(f"{folder} is no checkpoint to resume from: it has no {STATE_FILE}")
    if not _is_whole(folder):
        raise ValueError(f"{folder} is damaged; resume from an earlier checkpoint")
    steps = [path.name for path in _checkpoints(Path(args.output_dir))]
    if is_in_run(folder, args) and folder.name != steps[-1]:
        later = ", ".join(steps[steps.index(folder.name) + 1 :])
        raise ValueError(f"{folder} has later ones beside it ({later}): remove them, or name another --output_dir")
    return folder


def check_options(args: NerArguments, checkpoint: Path) -> None:
    """Raises a ValueError where flags are others than those of the checkpoint, whose optimiser would overrule them."""
    before = json.loads((checkpoint / ARGUMENTS_FILE).read_text("utf-8"))
    refuse_kept_options(args.as_json(), before, str(checkpoint))


def refuse_kept_options(now: Mapping[str, Any], before: Mapping[str, Any], source: str) -> None:
    """Raises a ValueError where a flag has changed that an optimiser brings back as it was."""
    changed = [name for name in _KEPT_BY_OPTIMIZER if name in now and now[name] != before.get(name, now[name])]
    if changed:
        flags = ", ".join(f"--{name} {now[name]} (before {before[name]})" for name in changed)
        advice = "give what was before, or train anew from the weights, with --model_name_or_path"
        raise ValueError(f"{flags} cannot change: the optimiser of {source} keeps what it had; {advice}")


def is_in_run(checkpoint: Path | None, args: NerArguments) -> bool:
    """Whether a checkpoint is of the run in ``output_dir``."""
    return checkpoint is not None and checkpoint.resolve().parent == Path(args.output_dir).resolve()


def _checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a run that hold a training state, in the order of their steps."""
    return [folder for folder in checkpoint_folders(output_dir) if (folder / STATE_FILE).is_file()]


def _is_whole(folder: Path) -> bool:
    """Whether no file is cut off; the formats say how long they are."""
    try:
        with safe_open(folder / WEIGHTS_FILE, "pt"):
            whole = zipfile.is_zipfile(folder / STATE_FILE)
    except (SafetensorError, OSError):
        whole = False
    if not whole:
        logger.warning("%s is damaged", folder)
    return whole
