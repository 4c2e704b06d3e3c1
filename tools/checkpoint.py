"""Write, find and load models and training checkpoints.

A checkpoint holds the model and the state of everything else that training changes: optimiser, schedule, loss scaler,
position in the data, random number generators and callbacks.
"""

import logging
import random
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from common.durable import atomic_files, atomic_write
from common.run_files import RunFolder
from models.tagger import Tagger
from models.word_states import WordStateOptions
from tools.distributed import gather_to_main, rank, run_on_main, world_size
from tools.heads import restore_weights
from tools.run_folder import explained_failure, save_model_folder
from tools.settings import Settings

logger = logging.getLogger(__name__)
# And all learning rates.
_KEPT_BY_OPTIMIZER = [
    "optim",
    "adafactor",
    "layer_decay",
    "weight_decay",
    "adam_epsilon",
    "freeze_layers",
    "freeze_embeddings",
]
_CONTEXTS = ("document_context", "context_size", "context_dropout")
_KEPT_BY_MODEL = [*(one.name for one in fields(WordStateOptions)), "class_weights", *_CONTEXTS]


class Stateful(Protocol):
    """An object whose state can be saved and restored."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, saved: Any) -> Any: ...


def write_model(
    folder: Path,
    settings: Settings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    parts: Mapping[str, Stateful] | None = None,
) -> None:
    """Replace a folder by one that holds the model. All ranks must call it; rank 0 writes.

    Args:
        parts: for a checkpoint to resume from: what it keeps besides the model and the states of all ranks' random
            number generators. The state of each part is that of rank 0.

    Raises:
        OSError: the disk is full or the folder is not writable; its former content is unchanged.
    """
    saved: dict[str, Any] = {name: part.state_dict() for name, part in (parts or {}).items()}
    if parts is not None:
        saved["random"] = gather_to_main(_random_state())

    def write() -> None:
        with explained_failure(folder, RunFolder(folder.parent)), atomic_write(folder, "replace") as fresh:
            save_model_folder(fresh, settings, model, tokenizer)
            if parts is not None:
                with RunFolder(fresh).training_state.open("wb") as file:  # torch.save(path) hides errors
                    torch.save(saved, file)

    run_on_main(write)


def publish_model(
    folder: RunFolder, settings: Settings, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write the model into a folder that holds other files too: each file atomically, the config last."""

    def write() -> None:
        with explained_failure(folder.weights, folder), atomic_files(folder.path, last=folder.config.name) as fresh:
            save_model_folder(fresh, settings, model, tokenizer)

    run_on_main(write)


def load_training_state(folder: Path, model: Tagger, parts: Mapping[str, Stateful]) -> None:
    """Restore the model, the parts and the random number generators from a checkpoint.

    Raises:
        ValueError: the checkpoint is damaged, or was written with a different model, dataset or precision.
    """
    state_file = RunFolder(folder).training_state
    try:
        restore_weights(model, folder)
        # weights_only: a pickle could run arbitrary code
        saved = torch.load(state_file, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    except UnpicklingError as error:
        message = "holds objects other than tensors and plain values: refusing to load it"
        raise ValueError(f"{state_file} {message}") from error
    except (SafetensorError, RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        raise ValueError(f"cannot resume from {folder}: {error}") from error
    states = saved["random"]
    if rank() < len(states) == world_size():
        _set_random_state(states[rank()])
    else:
        set_seed(saved["progress"]["step"] + rank())
        logger.warning("resuming with %d processes (was %d): dropout masks will differ", world_size(), len(states))


def _random_state() -> dict[str, Any]:
    """Random states of this process as plain numbers: `torch.distributed.gather_object` corrupts byte tensors."""
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


def checkpoint_to_resume(named: str, run: RunFolder) -> Path | None:
    """Find the checkpoint that ``--resume_from_checkpoint`` names; all ranks get the same one.

    Args:
        named: a checkpoint folder, ``auto`` for the latest complete checkpoint of the run (``None`` if there is none),
            or empty.

    Raises:
        ValueError: the named checkpoint cannot be resumed from, or the run has later ones.
    """
    if not named:
        return None

    def find() -> Path | None:
        checkpoints = [folder for folder in run.checkpoints() if RunFolder(folder).training_state.is_file()]
        if named == "auto":
            return next((folder for folder in reversed(checkpoints) if _is_whole(folder)), None)
        folder, state_file = Path(named), RunFolder(Path(named)).training_state
        if not state_file.is_file():
            raise ValueError(f"cannot resume from {folder}: it has no {state_file.name}")
        if not _is_whole(folder):
            raise ValueError(f"{folder} is damaged; resume from an earlier checkpoint")
        steps = [path.name for path in checkpoints]
        if is_in_run(folder, run) and folder.name != steps[-1]:
            later = ", ".join(steps[steps.index(folder.name) + 1 :])
            advice = f"remove {later}, or use another --output_dir"
            raise ValueError(f"{folder} is not the latest checkpoint of this run: {advice}")
        return folder

    return run_on_main(find)


def refuse_kept_options(now: Mapping[str, Any], before: Mapping[str, Any], source: str) -> None:
    """Raise a ValueError if flags have changed that the restored state overrides, or that make another model of it."""
    by_optimizer = [name for name in now if name in _KEPT_BY_OPTIMIZER or name.endswith("learning_rate")]
    reasons = {
        f"the optimiser state of {source} overrides them": by_optimizer,
        f"the model of {source} is trained with the former values": _KEPT_BY_MODEL,
    }
    for reason, kept in reasons.items():
        changed = [name for name in kept if name in now and now[name] != before.get(name, now[name])]
        if changed:
            flags = ", ".join(f"--{name} {now[name]} (before {before[name]})" for name in changed)
            advice = "use the former values, or start a new training from the weights with --model_name_or_path"
            raise ValueError(f"{flags} cannot change: {reason}; {advice}")


def is_in_run(checkpoint: Path | None, run: RunFolder) -> bool:
    """Whether a checkpoint lies in the folder of the run."""
    return checkpoint is not None and checkpoint.resolve().parent == run.path.resolve()


def _is_whole(folder: Path) -> bool:
    """Whether no file is truncated: both formats record their length."""
    files = RunFolder(folder)
    try:
        with safe_open(files.weights, "pt"):
            whole = zipfile.is_zipfile(files.training_state)
    except (SafetensorError, OSError):
        whole = False
    if not whole:
        logger.warning("%s is damaged", folder)
    return whole
