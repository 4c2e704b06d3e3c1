"""Checkpoints to go on from: model, optimiser, schedule, scaler, place in the data, random states, callbacks."""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase, set_seed

from models.tagger import Tagger
from tools.arguments import NerArguments
from tools.distributed import gather_to_main, rank, run_on_main, world_size
from tools.durable import publish_files, replaced_folder, unfinished_folder
from tools.run_folder import explained_failure, save_model_folder
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
