"""The output folder of a run: prepare it, write model and environment, lock it against other runs."""

import json
import logging
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.durable import atomic_write, is_full, remove_folder
from common.run_files import RunFolder
from tools.distributed import run_on_main, world_size
from tools.settings import ActionSettings, DataSettings, Settings

logger = logging.getLogger(__name__)
_LOCK_FILE, _HOLDER_FILE = ".run.lock", ".run.lock.holder"
_held: list[FileLock] = []  # locks of this process, at most one
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "pytorch-crf",
    "seqeval",
    "lightning",
    "tensorboardX",
    "triton",
)


def prepare_folder(folder: RunFolder, actions: ActionSettings, resumes: bool = False) -> None:
    """Create the folder; a new training deletes checkpoints and results of an earlier run.

    Args:
        resumes: whether the run in the folder is resumed.

    Raises:
        ValueError: training would overwrite an earlier run.
    """

    def prepare() -> None:
        is_new = actions.do_train and not resumes
        if is_new and not actions.overwrite_output_dir:
            advice = "name another --output_dir, or add --overwrite_output_dir"
            if folder.config.is_file():
                raise ValueError(f"{folder.path} holds a trained model; {advice}")
            held = folder.checkpoints() or folder.last_lightning_checkpoint.is_file()
            if held and actions.resume_from_checkpoint != "auto":  # auto found no complete checkpoint
                raise ValueError(f"{folder.path} holds checkpoints; {advice} or --resume_from_checkpoint auto")
        folder.path.mkdir(parents=True, exist_ok=True)
        if is_new:
            for old in (*folder.path.glob("checkpoint-*"), folder.tensorboard, folder.submissions):
                remove_folder(old)
            folder.last_lightning_checkpoint.unlink(missing_ok=True)
            for file in folder.results_of_all_kinds():
                file.unlink()

    run_on_main(prepare)


def save_model_folder(
    folder: Path, settings: Settings, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write weights (safetensors), config, tokenizer and settings into an empty folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(RunFolder(folder).settings, settings.flat())


@contextmanager
def explained_failure(target: Path, run: RunFolder) -> Iterator[None]:
    """Convert errors while writing a model into an OSError with the cause and the complete checkpoints.

    Args:
        target: file or folder that is written.
        run: folder of the run.
    """
    try:
        yield
    except Exception as error:
        if not (is_full(error) or isinstance(error, SafetensorError | RuntimeError | OSError)):
            raise
        free = f"the disk is full ({shutil.disk_usage(run.path).free / 1e6:.1f} MB free)"
        there = [path.name for path in (*run.checkpoints(), *sorted(run.path.glob("*.ckpt")))]
        state = f"complete: {', '.join(there)}" if there else "no checkpoint was written yet"
        raise OSError(f"{target} cannot be written: {free if is_full(error) else error}; {state}") from error


def data_flags(folder: RunFolder) -> dict[str, Any]:
    """The flags that name the data of a finished run.

    Raises:
        ValueError: the folder does not say where its data are.
    """
    if not folder.settings.is_file():
        raise ValueError(f"{folder.path} has no {folder.settings.name}, which names the data of a run")
    flags = json.loads(folder.settings.read_text("utf-8"))
    return {one.name: flags[one.name] for one in fields(DataSettings) if one.name in flags}


def save_environment(folder: RunFolder, device: torch.device) -> None:
    """Write package versions, machine, command and commit."""
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    packages = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    environment = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": packages,
        "platform": platform.platform(),
        "device": gpu or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
    }
    write_json(folder.environment, environment)


def write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as fresh:
        fresh.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _commit() -> str | None:
    command, root = ["git", "rev-parse", "HEAD"], Path(__file__).parent
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    return None


def lock_run_folder(folder: Path) -> None:
    """Create the folder, and lock it against other runs until `unlock_run_folder` or the end of the process.

    Rank 0 holds the lock for all processes of its run. Locking a second folder releases the first.

    Raises:
        ValueError: another run holds the lock.
    """
    unlock_run_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / _LOCK_FILE), folder / _HOLDER_FILE
    try:
        lock.acquire(timeout=0)
    except Timeout:
        advice = "wait until it has finished, or name another --output_dir"
        known = holder.read_text("utf-8") if holder.is_file() else "another run"
        raise ValueError(f"{folder} is in use by {known}; {advice}") from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): do not start a second run with the same --output_dir", folder, error)
        return
    _held.append(lock)
    process, since = f"process {os.getpid()} on {socket.gethostname()}", datetime.now().isoformat(" ", "seconds")
    holder.write_text(f"{Path(sys.argv[0]).name}, {process} since {since}", "utf-8")


def unlock_run_folder() -> None:
    """Release the lock of this process, if any."""
    while _held:
        _held.pop().release()
