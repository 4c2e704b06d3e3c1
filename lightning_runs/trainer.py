"""Set up Lightning: trainer, devices and processes, durable checkpoints; and start a run."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy

from common.durable import atomic_write
from common.run_files import RunFolder
from lightning_runs.flags import LightningOptions
from tools.checkpoint import refuse_kept_options
from tools.distributed import run_on_main
from tools.recipe import check_actions, lock_and_tidy, open_folder
from tools.run import Run
from tools.run_folder import explained_failure
from tools.settings import Settings

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
    """Raise a ValueError if a checkpoint has another form or model, or settings that the optimiser would override.

    Args:
        settings: settings of this run, from `tools.settings.Settings.flat`.
        model: description of the head and its labels.
        shapes: shapes of this run's weights, by name.
        source: name of the checkpoint, for messages.
    """
    if "training" not in checkpoint or "current_model_state" in checkpoint:  # Lightning's averages are elsewhere
        raise ValueError(f"{source} was written by an earlier version: resume with that version, or train again")
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


logger = logging.getLogger(__name__)
_NOISE = (
    r".*does not have many workers.*",
    r".*dataloader is not resumable.*",
    r".*custom batch sampler.*",
    r".*isinstance.treespec, LeafSpec.*",
    r".*`max_epochs` was not set.*",
    r".*but have no `validation_step`.*",
)


class DurableCheckpoints(TorchCheckpointIO):
    """Replaces checkpoints atomically; with Lightning's default, a killed process may lose the old and the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        with (
            explained_failure(path, RunFolder(path.parent)),
            atomic_write(path) as fresh,
            fresh.open("wb") as file,  # torch.save(path) hides the cause of a failed write
        ):
            torch.save(checkpoint, file)


def build_trainer(settings: Settings, options: LightningOptions) -> Trainer:
    """Build the trainer, which provides devices, processes and checkpoints only.

    Raises:
        ValueError: flags request devices that this machine does not have, or contradict each other.
    """
    machine, (gpus, devices) = settings.machine, (options.gpus, options.devices)
    if machine.no_cuda and gpus is None:
        gpus = 0
    if faults := list(_faults(machine.no_cuda, gpus, devices, torch.cuda.device_count())):
        raise ValueError("; ".join(faults))
    on_gpu, count = gpus != 0 and torch.cuda.is_available(), devices or gpus or 1
    strategy = DDPStrategy(
        broadcast_buffers=False,
        process_group_backend="cpu:gloo,cuda:nccl" if on_gpu else "gloo",  # processes also exchange objects
        timeout=timedelta(seconds=machine.ddp_timeout),
    )
    return Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=count,
        num_nodes=options.num_nodes,
        strategy="auto" if count == options.num_nodes == 1 else strategy,
        max_epochs=-1,  # the module sets the number of steps
        use_distributed_sampler=False,  # the batches are already this rank's share
        plugins=[DurableCheckpoints()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _faults(no_cuda: bool, gpus: int | None, devices: int | None, gpus_here: int) -> Iterator[str]:
    wanted = (devices or gpus or 0) if gpus != 0 else 0
    if wanted > gpus_here:
        yield f"{wanted} GPUs requested, but this machine has {gpus_here}; use --gpus 0 for the CPU"
    if gpus and devices and gpus != devices:
        yield f"--gpus {gpus} and --devices {devices} contradict each other; use only one of them"
    if no_cuda and gpus:
        yield f"--no_cuda and --gpus {gpus} contradict each other; use only one of them"


def start_run(settings: Settings, trainer: Trainer, note: str, check_data: Callable[[Run], None]) -> Run:
    """Launch the processes, and start the run as `tools.recipe.start_run` does.

    Args:
        note: note on defaults, for the log.
        check_data: function of the run that raises an error if a split is missing.
    """
    check_actions(settings)
    for noise in _NOISE:
        warnings.filterwarnings("ignore", message=noise)
    if (launcher := trainer.strategy.launcher) is not None:
        launcher.launch(trainer.strategy.setup_environment, trainer=trainer)
    device = trainer.strategy.root_device
    run = Run.of(settings, device, int(device.type == "cuda"))
    check_data(run)  # before an earlier run is deleted
    actions = settings.actions
    lock_and_tidy(run.folder.path, may_be_new=actions.do_train or bool(settings.model.model_name_or_path))
    checkpoint = run_on_main(lambda: checkpoint_file(actions.resume_from_checkpoint, run.folder))
    open_folder(run, checkpoint)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if note:
        logger.info("Defaults that differ from those of run_ner_*.py: %s", note)
    return run


def source_of(run: Run) -> str | None:
    """Folder of a model to apply, if ``--model_name_or_path`` names it and ``output_dir`` holds none."""
    actions, named = run.settings.actions, run.settings.model.model_name_or_path
    return named if not actions.do_train and named and not run.folder.config.is_file() else None
