"""Fine-tuning under Lightning: what the NER and the GLUE script share.

The training is that of `tools.train`: batches of like length, one loss a step that is a mean over all of its words or
texts, whatever the number of processes and accumulation rounds, and scores of a whole split, not of its batches.
"""

import logging
import os
import sys
import warnings
from abc import abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from callbacks import Callbacks, TrainState
from common.durable import remove_folder, replaced_file, replaced_folder, tidy
from common.log import setup_logging
from common.run_files import RunFolder
from lightning_runs.callbacks import (
    AveragedWeights,
    BestFolder,
    LastCheckpoint,
    check_course,
    check_model,
)
from lightning_runs.flags import add_generic_args, add_model_args, check_arguments, trainer_options
from lightning_runs.scoring import SplitScoring
from processors.features.batching import BucketBatchSampler, StepLoader
from tools.callback_setup import build_strategies, weight_averaging
from tools.distributed import is_main, rank, sum_over_ranks, world_size
from tools.optimizer import build_optimizer, build_schedule
from tools.run import Run
from tools.run_folder import explained_failure, lock_run_folder, remove_results, save_environment

__all__ = [
    "BaseTransformer",
    "add_generic_args",
    "best_checkpoint",
    "generic_train",
    "predict_best",
    "start_lightning_run",
    "test_best",
]

logger = logging.getLogger(__name__)
_NOISE = (
    r".*sync_dist=True.*",
    r".*does not have many workers.*",
    r".*dataloader is not resumable.*",
    r".*custom batch sampler.*",
    r".*predict returned None.*",
    r".*exists and is not empty.*",
    r".*isinstance.treespec, LeafSpec.*",
    r".*callbacks used to create the checkpoint.*",  # the mean of the weights, which is in place already
)
_BEST_CHECKPOINT = "checkpoint-{epoch}"


class BaseTransformer(SplitScoring):
    """An encoder with a head, trained and scored by Lightning; subclasses say on which data and how.

    Args:
        hparams: the flags of the run; they are kept in its checkpoints.
        run: the same for the parts that are shared with the other scripts.
        model: what is trained.
        tokenizer: of the encoder.
    """

    mode: ClassVar[str]
    automatic_optimization = False  # a batch may take several passes

    def __init__(
        self,
        hparams: Namespace | Mapping[str, Any],
        run: Run,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__(run, model)
        self.save_hyperparameters(hparams)
        self.tokenizer = tokenizer
        self._sampler: BucketBatchSampler | None = None
        self._order = ""
        self._loss_of_step: Tensor | float = 0.0
        self._strategies = Callbacks(build_strategies(run.settings.optimisation))

    @property
    @abstractmethod
    def traits(self) -> dict[str, str]:
        """The flags without which a checkpoint's weights would mean something else."""

    @abstractmethod
    def check_split(self, split: str) -> None:
        """Raises a DataError where a split is not there."""

    @abstractmethod
    def open_split(self, split: str, alone: bool = False) -> Any:
        """The features of a split, from the cache; ``alone`` where the other processes do not do the same."""

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> Any:
        """The model's output for a batch; its ``loss`` is a sum over the units, divided by ``num_items_in_batch``."""

    def prepare_data(self) -> None:
        assert self.trainer.state.fn is not None
        for split in self.splits(self.trainer.state.fn.value):
            self.open_split(split, alone=True)

    def setup(self, stage: str) -> None:
        for split in self.splits(stage):
            if split not in self.datasets:
                self.datasets[split] = self.open_split(split)
        if stage == "fit":
            optimisation = self.run.settings.optimisation
            self._sampler = BucketBatchSampler(
                self.datasets["train"].lengths,
                batch_size=optimisation.per_gpu_train_batch_size,
                rounds=optimisation.gradient_accumulation_steps,
                rank=rank(),
                world_size=world_size(),
                seed=optimisation.seed,
            )
            self._order = self._sampler.order_digest

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        assert self._sampler is not None, "setup('fit') makes it"
        return self._sampler.steps * int(self.hparams["max_epochs"])

    def train_dataloader(self) -> StepLoader:
        assert self._sampler is not None
        dataset = self.datasets["train"]
        return StepLoader(
            dataset, self._sampler, self.unit_counts(dataset), self._place, **self.loading_options(dataset)
        )

    def _place(self) -> tuple[int, int]:
        """The epoch, and the batches of it that were trained on before an interruption."""
        return self.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"order": self._order, "traits": self.traits}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        source = str(self._trainer.ckpt_path) if self._trainer else "the checkpoint"
        check_model(checkpoint, self, self.traits, source)
        if self._order:
            check_course(checkpoint, self._order, self.hparams, source)

    def configure_optimizers(self) -> Any:
        settings = self.run.settings
        optimizer = build_optimizer(settings.optimisation, self.model, settings.head)
        schedule = build_schedule(settings.optimisation, optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.model.train()  # pretrained models come in evaluation mode, and Lightning leaves modes as they are
        if is_main():
            save_environment(self.run.folder, self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # dropout follows from the place in the training alone, so a resumed run goes on as if it had never stopped
        place = (self.run.settings.optimisation.seed, self.current_epoch, batch_idx, rank())
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def on_train_start(self) -> None:
        rounds, optimizer = self.run.settings.optimisation.gradient_accumulation_steps, self.trainer.optimizers[0]
        self.trainer.accumulate_grad_batches = rounds  # only counts steps for the logs: this module steps by itself
        steps_per_epoch = max(1, self.total_steps // int(self.hparams["max_epochs"]))
        self._state = TrainState(self.model, optimizer, self.total_steps, steps_per_epoch)
        self._strategies.on_train_begin(self._state)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        ends_step = (batch_idx + 1) % self.run.settings.optimisation.gradient_accumulation_steps == 0
        loss = self._strategies.around_backward(self._state, partial(self._backward, batch, ends_step))
        self._log_loss(loss, ends_step)
        if ends_step:
            optimizer, schedule = self.optimizers(), self.lr_schedulers()
            optimizer.step()  # type: ignore[union-attr]
            optimizer.zero_grad()  # type: ignore[union-attr]
            schedule.step()  # type: ignore[union-attr]

    def _backward(self, batch: dict[str, Any], ends_step: bool, last: bool = True) -> Tensor:
        strategy = self.trainer.strategy
        is_last = not isinstance(strategy, DDPStrategy) or (last and ends_step)
        with nullcontext() if is_last else cast(DDPStrategy, strategy).block_backward_sync():
            loss: Tensor = self._strategies.around_forward(self._state, self.forward, batch).loss
            # DDP averages over ranks; the loss is already divided by what all of them hold
            self.manual_backward(loss * world_size())
        return loss.detach()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.hparams["gradient_clip_val"]:
            self.clip_gradients(optimizer, self.hparams["gradient_clip_val"], "norm")

    def _log_loss(self, loss: Tensor, ends_step: bool) -> None:
        self._loss_of_step = self._loss_of_step + loss
        if not ends_step:
            return
        if (self.global_step + 1) % int(self.hparams["log_every_n_steps"]) == 0:  # `Trainer` writes after the step
            self.log("train_loss", sum_over_ranks(torch.as_tensor(self._loss_of_step)), prog_bar=True)
        self._loss_of_step = 0.0

    @staticmethod
    def add_model_specific_args(parser: ArgumentParser) -> None:
        add_model_args(parser)

    def save_best(self) -> None:
        """Writes the present weights as a Hugging Face folder, ``best_tfmr``."""
        folder = self.run.folder.best_lightning_model
        with explained_failure(folder, self.run.folder), replaced_folder(folder) as fresh:
            self.model.save_pretrained(fresh)
            self.tokenizer.save_pretrained(fresh)


class _DurableCheckpoints(TorchCheckpointIO):
    """Keeps a checkpoint until the next one is whole: Lightning's own is not where its folder is on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with explained_failure(Path(path), RunFolder(Path(path).parent)), replaced_file(Path(path)) as file:
            torch.save(checkpoint, file)


def start_lightning_run(args: Namespace, metrics: Sequence[str]) -> None:
    """Checks the flags, makes and locks the folder of the run, seeds; every process calls it, before they are joined.

    Args:
        metrics: the scores that there are of dev.
    """
    check_arguments(args, metrics)
    folder = Path(args.output_dir)
    if _is_first_process():
        lock_run_folder(folder)
        if _starts_over(args) and not args.overwrite_output_dir:
            advice = "name another --output_dir, or add --overwrite_output_dir or --resume_from_checkpoint auto"
            raise ValueError(f"{folder} holds checkpoints of an earlier run; {advice}")
        tidy(folder)
        setup_logging(folder, anew=args.do_train and not args.resume_from_checkpoint)
    for noise in _NOISE:
        warnings.filterwarnings("ignore", message=noise)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    set_seed(args.seed)


def _starts_over(args: Namespace) -> bool:
    """Whether a training begins where an earlier one has left checkpoints."""
    folder = RunFolder(Path(args.output_dir))
    earlier = best_checkpoint(folder.path) or folder.last_lightning_checkpoint.is_file()
    return bool(args.do_train and not args.resume_from_checkpoint and earlier)


def _clear_run(folder: RunFolder) -> None:
    """Removes what an earlier run left, which would be taken for the new one's."""
    for old in (folder.tensorboard, folder.best_lightning_model, folder.path / "submission"):
        remove_folder(old)
    for path in folder.path.glob("*.ckpt"):
        path.unlink()
    remove_results(folder)


def _is_first_process() -> bool:
    """Whether this is rank 0, also before the processes are joined, when Lightning knows ranks of one machine only."""
    return rank_zero_only.rank == 0 and os.environ.get("NODE_RANK", "0") == "0"  # type: ignore[attr-defined]


def generic_train(model: BaseTransformer, args: Namespace, extra_callbacks: Sequence[Callback] = ()) -> Trainer:
    """Trains where ``--do_train`` says so, and returns the trainer, ready to test."""
    folder = Path(args.output_dir)
    if args.do_train and _is_first_process():
        for split in (*model.splits("fit"), *(model.splits("test") if args.do_predict else ())):
            model.check_split(split)  # before an earlier run is cleared away
        if _starts_over(args):
            _clear_run(model.run.folder)
    best = ModelCheckpoint(
        folder,
        _BEST_CHECKPOINT,
        **_what_is_best(args),
        enable_version_counter=False,
        save_on_train_epoch_end=False,  # but before the others do
    )
    averaging = weight_averaging(model.run.settings.optimisation)
    means = [AveragedWeights(averaging, lambda: model.total_steps)] if averaging else []
    callbacks = [
        best,
        BestFolder(model.save_best),
        *means,
        LastCheckpoint(model.run.folder, args.save_steps),
        *extra_callbacks,
    ]
    if args.early_stopping_patience > 0:
        patience = args.early_stopping_patience
        callbacks.append(EarlyStopping(**_what_is_best(args), patience=patience, check_on_train_epoch_end=False))
    board: TensorBoardLogger | bool = False
    if args.report_to == "tensorboard":
        board = TensorBoardLogger(folder, name=model.run.folder.tensorboard.name, version="", default_hp_metric=False)
        callbacks.append(LearningRateMonitor(logging_interval="step"))
    machine = trainer_options(args)
    alone = machine["devices"] == 1 and args.num_nodes == 1
    trainer = Trainer(
        **machine,
        strategy="auto" if alone else DDPStrategy(broadcast_buffers=False),  # ranks score different numbers of batches
        max_epochs=args.max_epochs,
        log_every_n_steps=args.log_every_n_steps,
        num_sanity_val_steps=0,  # scores are of whole splits
        use_distributed_sampler=False,  # the sampler deals out to ranks by itself
        callbacks=callbacks,
        logger=board,
        plugins=[_DurableCheckpoints()],
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )
    if args.do_train:
        trainer.fit(model, ckpt_path=_checkpoint_to_resume(args), weights_only=True)
    return trainer


def _what_is_best(args: Namespace) -> dict[str, Any]:
    """The score that is watched, in Lightning's terms."""
    metric = args.metric_for_best_model
    return {"monitor": f"val_{metric}", "mode": "min" if metric == "loss" else "max"}


def test_best(model: BaseTransformer, trainer: Trainer) -> dict[str, float]:
    """Tests the best checkpoint of the run, or, where there is none, the model as it is."""
    if model.splits("test"):
        best = best_checkpoint(model.output_dir)
        trainer.test(model, ckpt_path=str(best) if best else None, weights_only=True, verbose=False)
    return model.results


def predict_best(model: BaseTransformer, trainer: Trainer) -> None:
    """Applies the same to what is to be predicted, where there is any."""
    if model.splits("predict"):
        best = best_checkpoint(model.output_dir)
        trainer.predict(model, ckpt_path=str(best) if best else None, weights_only=True, return_predictions=False)


def best_checkpoint(output_dir: Path) -> Path | None:
    """The best checkpoint that a run left."""
    return next(reversed(RunFolder(output_dir).lightning_checkpoints()), None)


def _checkpoint_to_resume(args: Namespace) -> str | None:
    if args.resume_from_checkpoint in ("", "auto"):
        last = RunFolder(Path(args.output_dir)).last_lightning_checkpoint
        return str(last) if args.resume_from_checkpoint and last.is_file() else None
    if not Path(args.resume_from_checkpoint).is_file():
        raise ValueError(f"--resume_from_checkpoint {args.resume_from_checkpoint}: there is no such file")
    return str(args.resume_from_checkpoint)
