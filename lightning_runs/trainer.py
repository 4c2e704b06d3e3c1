"""What Lightning brings: devices and processes, averaged weights, the file of a checkpoint; and how a run starts."""

import logging
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from common.durable import atomic_write
from common.run_files import RunFolder
from lightning_runs.checkpoint import checkpoint_file
from lightning_runs.flags import LightningOptions
from tools.distributed import run_on_main
from tools.recipe import check_actions, lock_and_tidy, open_folder
from tools.run import Run
from tools.run_folder import explained_failure
from tools.settings import OptimisationSettings, Settings

logger = logging.getLogger(__name__)
_NOISE = (
    r".*does not have many workers.*",
    r".*dataloader is not resumable.*",
    r".*custom batch sampler.*",
    r".*isinstance.treespec, LeafSpec.*",
    r".*`max_epochs` was not set.*",
    r".*but have no `validation_step`.*",
)


class AveragedWeights(WeightAveraging):
    """Lightning's averaging with the averages of `callbacks.averaging`: EMA with a warm-up, or SWA from some step on.

    Until SWA begins, the average is the weights themselves.
    """

    def __init__(self, optimisation: OptimisationSettings) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=self._update)
        self._optimisation = optimisation
        self._total_steps = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._total_steps = cast(Any, pl_module).total_steps

    def _update(self, means: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        """Brings the weights of a step into the means, after ``count`` steps."""
        steps = int(count)
        if self._optimisation.averaging == "ema":
            get_ema_multi_avg_fn(min(self._optimisation.ema_decay, (1 + steps) / (10 + steps)))(means, weights, steps)
        else:
            start = int(self._optimisation.swa_start * self._total_steps)
            get_swa_multi_avg_fn()(means, weights, max(0, steps - start))


class DurableCheckpoints(TorchCheckpointIO):
    """Keeps a checkpoint until the next one is complete; Lightning's own may lose both when the process is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        with (
            explained_failure(path, RunFolder(path.parent)),
            atomic_write(path) as fresh,
            fresh.open("wb") as file,  # torch itself would hide why it cannot write
        ):
            torch.save(checkpoint, file)


def build_trainer(settings: Settings, options: LightningOptions) -> Trainer:
    """The trainer: devices, processes and checkpoints; the rest of the work is that of the other scripts.

    Raises:
        ValueError: flags ask for devices that this machine does not have, or contradict each other.
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
        max_epochs=-1,  # the module says how many steps there are
        use_distributed_sampler=False,  # the batches are this process's share already
        callbacks=[] if settings.optimisation.averaging == "none" else [AveragedWeights(settings.optimisation)],
        plugins=[DurableCheckpoints()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _faults(no_cuda: bool, gpus: int | None, devices: int | None, gpus_here: int) -> Iterator[str]:
    wanted = (devices or gpus or 0) if gpus != 0 else 0
    if wanted > gpus_here:
        yield f"{wanted} GPUs are asked for, and this machine has {gpus_here}; --gpus 0 stays on the CPU"
    if gpus and devices and gpus != devices:
        yield f"--gpus {gpus} and --devices {devices} contradict each other; give one of them"
    if no_cuda and gpus:
        yield f"--no_cuda and --gpus {gpus} contradict each other; give one of them"


def start_run(settings: Settings, trainer: Trainer, note: str, check_data: Callable[[Run], None]) -> Run:
    """Joins the processes, and does what `tools.recipe.start_run` does.

    Args:
        note: about defaults, for the log.
        check_data: takes the run, and raises an error where a split is missing.
    """
    check_actions(settings)
    for noise in _NOISE:
        warnings.filterwarnings("ignore", message=noise)
    if (launcher := trainer.strategy.launcher) is not None:
        launcher.launch(trainer.strategy.setup_environment, trainer=trainer)
    device = trainer.strategy.root_device
    run = Run.of(settings, device, int(device.type == "cuda"))
    check_data(run)  # before an earlier run is cleared away
    actions = settings.actions
    lock_and_tidy(run.folder.path, may_be_new=actions.do_train or bool(settings.model.model_name_or_path))
    checkpoint = run_on_main(lambda: checkpoint_file(actions.resume_from_checkpoint, run.folder))
    open_folder(run, checkpoint)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if note:
        logger.info("Defaults that differ from those of run_ner_*.py: %s", note)
    return run


def source_of(run: Run) -> str | None:
    """The folder of a model that is only applied, where ``--model_name_or_path`` names it and not ``output_dir``."""
    actions, named = run.settings.actions, run.settings.model.model_name_or_path
    return named if not actions.do_train and named and not run.folder.config.is_file() else None
