"""Training with Lightning, shared by the NER and GLUE scripts.

Lightning provides processes, epochs and the checkpoint to resume from. Steps, logs, evaluation on dev and output files
are those of `tools.train`.
"""

import logging
from abc import abstractmethod
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from callbacks import TrainState
from lightning_runs.trainer import check_checkpoint, checkpoint_file
from processors.features.batching import BucketBatchSampler, StepLoader
from tools.checkpoint import publish_model
from tools.distributed import Interrupted, Interruption, rank, run_on_main, watch_for_interruption, world_size
from tools.optimizer import build_optimizer, build_schedule, checkpoint_layers, freeze
from tools.run import Run
from tools.train import Training, count_steps, draws_to_train, lengths_to_train

logger = logging.getLogger(__name__)


class BaseTransformer(LightningModule):
    """Lightning module of an encoder with a head; subclasses provide data, loss and scores.

    Args:
        run: settings, folder, device.
        model: model, on its device.
        tokenizer: tokenizer of the encoder.
    """

    course: Training  # since the training began
    _sampler: BucketBatchSampler  # since the module was set up
    automatic_optimization = False  # a batch may need several passes

    def __init__(self, run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.run, self.model, self.tokenizer = run, model, tokenizer
        self.interruption = Interruption()
        self._interrupted = False
        self._resumed: dict[str, Any] = {}

    @abstractmethod
    def open_train(self) -> tuple[Any, NDArray[np.int32]]:
        """Load the train split, and the number of units per item that the loss is averaged over: words, or a label."""

    @abstractmethod
    def describe(self, index: int) -> dict[str, Any]:
        """Content of an item of the train split, for the report of steps that are not finite."""

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> Any:
        """Compute the output for a batch, whose ``loss`` is the sum over units divided by ``num_items_in_batch``."""

    @abstractmethod
    def score_dev(self, state: TrainState) -> None:
        """Score the dev split, and store the scores in the state."""

    def setup(self, stage: str) -> None:
        optimisation = self.run.settings.optimisation
        freeze(optimisation, self.model)
        checkpoint_layers(self.run.settings.machine, self.model)
        self._dataset, self._counts = self.open_train()
        self._rounds = optimisation.gradient_accumulation_steps
        self._sampler = BucketBatchSampler(
            lengths_to_train(self._dataset, self.run.settings),
            batch_size=optimisation.per_gpu_train_batch_size,
            rounds=self._rounds,
            rank=rank(),
            world_size=world_size(),
            seed=optimisation.seed,
            drawn=draws_to_train(self._dataset, self.run.settings),
        )
        self._order = self._sampler.order_digest
        self.steps_per_epoch = self._sampler.steps
        self.total_steps = count_steps(optimisation, self.steps_per_epoch)
        self.trainer.fit_loop.epoch_loop.max_steps = self.total_steps

    def train_dataloader(self) -> StepLoader:
        options = {
            "collate_fn": self._dataset.collate,
            "num_workers": self.run.settings.optimisation.num_workers,
            "pin_memory": self.run.device.type == "cuda",
        }
        return StepLoader(self._dataset, self._sampler, self._counts, self._place, **options)

    def _place(self) -> tuple[int, int]:
        """Current epoch, and the number of its batches that are already trained on."""
        return self.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def configure_optimizers(self) -> Any:
        settings = self.run.settings
        optimizer = build_optimizer(settings.optimisation, self.model, settings.head)
        return [optimizer], [build_schedule(settings.optimisation, optimizer, self.total_steps)]

    def on_fit_start(self) -> None:
        scores_dev = self.run.settings.logging.evaluate_during_training
        self.course = Training(
            self.run,
            self.model,
            self.tokenizer,
            self.trainer.optimizers[0],
            self._dataset,
            self._counts,
            self.steps_per_epoch,
            describe=self.describe,
            score_dev=self.score_dev if scores_dev else None,
        )
        if self._resumed:
            for name, part in self.course.parts.items():
                part.load_state_dict(self._resumed[name])
            self.course.resumed(self.trainer.ckpt_path)

    def on_train_start(self) -> None:
        self.interruption.listen()  # Lightning has replaced the handlers
        self.course.begin()
        self.trainer.should_stop = self.course.state.should_stop

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Dropout depends only on the position in training, so that resumed runs give identical results.
        place = (self.run.settings.optimisation.seed, self.current_epoch, batch_idx, rank())
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        strategy = self.trainer.strategy
        unsynchronised = strategy.block_backward_sync if isinstance(strategy, DDPStrategy) else nullcontext
        last_round = (batch_idx + 1) % self._rounds == 0
        self.course.backward(self.forward, batch, last_round, unsynchronised, self.manual_backward)
        if last_round:
            counter = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
            counter.increment_ready()  # Lightning only counts steps of its own optimizer wrapper
            counter.increment_completed()
            items = self._sampler.step_windows(batch_idx // self._rounds)
            self.course.end_step(items, self.lr_schedulers())  # type: ignore[arg-type]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % self._rounds:
            return
        state = self.course.state
        self._interrupted = self.interruption.seen_by_any() and state.step < state.total_steps
        if not self._interrupted:
            self.course.evaluate_if_due()
        self.trainer.should_stop = state.should_stop
        if not self.trainer.is_last_batch:
            self._save_if_due()

    def on_train_epoch_end(self) -> None:
        if self.trainer.is_last_batch:  # Lightning has now counted the epoch as complete
            self._save_if_due()

    def _save_if_due(self) -> None:
        state = self.course.state
        if self.course.checkpoints.is_due(state) or self._interrupted:
            self.save_checkpoint()
        if self._interrupted:
            logger.info("Stopped after step %d; resume with --resume_from_checkpoint auto", state.step)
            raise Interrupted

    def save_checkpoint(self) -> None:
        """Write last.ckpt."""
        self.trainer.save_checkpoint(self.run.folder.last_lightning_checkpoint)

    def on_train_end(self) -> None:
        self.course.end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        parts = {name: part.state_dict() for name, part in self.course.parts.items()}
        checkpoint |= {"order": self._order, "settings": self.run.settings.flat(), "model": self._described()}
        checkpoint["training"] = parts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        source = str(self._trainer.ckpt_path) if self._trainer else "the checkpoint"
        shapes = {name: tuple(weight.shape) for name, weight in self.state_dict().items()}
        check_checkpoint(checkpoint, self.run.settings.flat(), self._described(), shapes, source)
        if hasattr(self, "_sampler") and checkpoint["order"] != self._order:
            raise ValueError(
                "the order of the training data has changed: use the same data, --seed, --max_seq_length and sequences "
                "per step (--train_batch_size x processes x --accumulate_grad_batches)"
            )
        self._resumed = checkpoint["training"]

    def _described(self) -> str:
        names = [name for _, name in sorted((self.model.config.id2label or {}).items())]
        return f"{type(self.model).__name__} with labels {' '.join(names)}"


def generic_train(module: BaseTransformer, trainer: Trainer) -> None:
    """Train the model in place, restore the best weights and write the model to ``output_dir``."""
    run, model = module.run, module.model
    checkpoint = run_on_main(lambda: checkpoint_file(run.settings.actions.resume_from_checkpoint, run.folder))
    with watch_for_interruption() as interruption:
        module.interruption = interruption
        try:
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        finally:
            if hasattr(module, "course"):
                module.course.callbacks.close()
    nn.Module.to(model, run.device)  # Lightning moves it to the CPU
    module.course.restore_best()
    module.course.write_results()
    publish_model(run.folder, run.settings, model, module.tokenizer)
    logger.info("Trained %d steps; model written to %s", module.course.state.step, run.folder.path)
