"""Checkpoints to go on from: model, optimiser, schedule, scaler, place in the data, random states, callbacks."""

import json
import logging
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase, set_seed

from common.durable import publish_files, replaced_folder, unfinished_folder
from models.tagger import Tagger
from tools.arguments import NerArguments
from tools.distributed import gather_to_main, rank, run_on_main, world_size
from tools.run_folder import ARGUMENTS_FILE, checkpoint_folders, explained_failure, save_model_folder
from tools.weights import restore_weights

logger = logging.getLogger(__name__)
STATE_FILE = "training_state.pt"
WEIGHTS_FILE = "model.safetensors"


class Stateful(Protocol):
    """What can say where it stands, and go on from there."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, saved: Any) -> Any: ...


def write_model(folder: Path, args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> None:
    """Replaces a folder by one that holds the model; all ranks call it, and rank 0 writes.

    Raises:
        OSError: the disk is full, or the place cannot be written; what was there before is there still.
    """

    def write() -> None:
        with explained_failure(folder, folder.parent), replaced_folder(folder) as fresh:
            save_model_folder(fresh, args, model, tokenizer)

    run_on_main(write)


def write_checkpoint(
    folder: Path, args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase, parts: Mapping[str, Stateful]
) -> None:
    """The same with the state of the training; of every part rank 0's counts, of random numbers every rank's."""
    saved: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    saved["random"] = gather_to_main(_random_state())

    def write() -> None:
        with explained_failure(folder, folder.parent), replaced_folder(folder) as fresh:
            save_model_folder(fresh, args, model, tokenizer)
            with (fresh / STATE_FILE).open("wb") as file:  # torch itself would hide why it cannot write
                torch.save(saved, file)

    run_on_main(write)


def publish_model(folder: Path, args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes the model into a folder that holds other things too, each file whole and the config last."""

    def write() -> None:
        with explained_failure(folder / "model.safetensors", folder), unfinished_folder(folder / "model") as fresh:
            save_model_folder(fresh, args, model, tokenizer)
            publish_files(fresh, folder, last="config.json")

    run_on_main(write)


def load_training_state(folder: Path, model: Tagger, parts: Mapping[str, Stateful]) -> None:
    """Brings the model and the parts to where they were when the checkpoint was written.

    Raises:
        ValueError: the checkpoint is damaged, or of another model, other data or another precision.
    """
    try:
        restore_weights(model, folder)
        # weights_only: tensors and plain values, no code that a pickle could run
        saved = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    except UnpicklingError as error:
        raise ValueError(f"{folder / STATE_FILE} holds more than tensors and plain values: it is not ours") from error
    except (SafetensorError, RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        raise ValueError(f"cannot resume from {folder}: {error}") from error
    states = saved["random"]
    if rank() < len(states) == world_size():
        _set_random_state(states[rank()])
    else:
        set_seed(saved["progress"]["step"] + rank())
        logger.warning("%d processes go on where %d were: dropout takes another course", world_size(), len(states))


def _random_state() -> dict[str, Any]:
    """Of this process, as plain numbers: tensors of bytes do not survive `torch.distributed.gather_object`."""
    _, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {"python": random.getstate(), "numpy": [np.asarray(keys).tolist(), *rest]}
    state["torch"] = torch.get_rng_state().tolist()
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().tolist()
    return state


def _set_random_state(state: Mapping[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(("MT19937", *state["numpy"]))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))


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
