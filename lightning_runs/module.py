"""Training with Lightning, shared by the NER and GLUE scripts.

Lightning provides processes, epochs and the checkpoint to resume from. Steps, logs, evaluation on dev and output files
are those of `tools.train`.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from callbacks import Callbacks, Checkpoints, TrainState
from common.durable import remove_folder
from lightning_runs.trainer import check_checkpoint, checkpoint_file
from processors.features.batching import BucketBatchSampler, StepLoader
from tools.callback_setup import build_callbacks
from tools.checkpoint import Stateful, publish_model, write_model
from tools.distributed import Interrupted, Interruption, is_main, rank, run_on_main, watch_for_interruption, world_size
from tools.meter import Meter, NonFiniteSteps, encoder_cost, peak_flops, peak_memory
from tools.optimizer import build_optimizer, build_schedule, freeze
from tools.precision import GradientStep
from tools.preparation import checkpoint_layers
from tools.run import Run
from tools.run_folder import write_json
from tools.train import count_steps, forget_missing_best, is_due, restore_best, training_results

logger = logging.getLogger(__name__)


class BaseTransformer(LightningModule):
    """Lightning module of an encoder with a head; subclasses provide data, loss and scores.

    Args:
        run: settings, folder, device.
        model: model, on its device.
        tokenizer: tokenizer of the encoder.
    """

    mode: ClassVar[str]
    nonfinite_steps: ClassVar[type[NonFiniteSteps]] = NonFiniteSteps
    automatic_optimization = False  # a batch may need several passes

    def __init__(self, run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.run, self.model, self.tokenizer = run, model, tokenizer
        self.interruption = Interruption()
        self._interrupted = False
        self._resumed: dict[str, Any] = {}
        self._sampler: BucketBatchSampler | None = None

    @abstractmethod
    def open_split(self, split: str) -> Any:
        """Load the features of a split."""

    @abstractmethod
    def unit_counts(self, dataset: Any) -> NDArray[np.int32]:
        """Number of units per dataset item that the loss is averaged over: words, or one label per text."""

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> Any:
        """Compute the output for a batch, whose ``loss`` is the sum over units divided by ``num_items_in_batch``."""

    @abstractmethod
    def score_dev(self, state: TrainState) -> None:
        """Score the dev split, and store the scores in the state."""

    def setup(self, stage: str) -> None:
        optimisation = self.run.settings.optimisation
        freeze(optimisation, self.model)
        if self.run.settings.machine.gradient_checkpointing:
            checkpoint_layers(self.model)
        self._dataset = self.open_split("train")
        self._counts = self.unit_counts(self._dataset)
        self._rounds = optimisation.gradient_accumulation_steps
        self._sampler = BucketBatchSampler(
            self._dataset.lengths,
            batch_size=optimisation.per_gpu_train_batch_size,
            rounds=self._rounds,
            rank=rank(),
            world_size=world_size(),
            seed=optimisation.seed,
        )
        self._order = self._sampler.order_digest
        self.steps_per_epoch = self._sampler.steps
        self.total_steps = count_steps(optimisation, self.steps_per_epoch)
        self.trainer.fit_loop.epoch_loop.max_steps = self.total_steps

    def train_dataloader(self) -> StepLoader:
        assert self._sampler is not None
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
        settings, folder, optimizer = self.run.settings, self.run.folder, self.trainer.optimizers[0]
        self.model.train()  # pretrained models start in evaluation mode, which Lightning does not change
        names = [str(name) for _, name in sorted((self.model.config.id2label or {}).items())]
        self.state = TrainState(self.model, optimizer, self.total_steps, self.steps_per_epoch, is_main(), names)
        self._gradients = GradientStep(self.run.precision, self.model, optimizer)
        self._encoder_cost = encoder_cost(self.model)
        self._computed_tokens = self._computed_rows = self._batch_rows = 0  # per step, on this rank
        self.meter = Meter(self.run.device, peak_flops(self.run.device, self.run.precision.dtype, n_gpu=1))
        patience = settings.optimisation.max_nonfinite_steps
        self._nonfinite = self.nonfinite_steps(self._dataset, self.tokenizer, folder.nonfinite_steps, patience)
        every = settings.logging.save_steps
        self.checkpoints = Checkpoints(
            folder,
            save_model=lambda best: write_model(best, settings, self.model, self.tokenizer),
            save_checkpoint=lambda _: self.save_checkpoint(),
            every=self.steps_per_epoch if every < 0 else every,
            keep=0,
            remove=remove_folder,
            metric=settings.logging.metric_for_best_model,
        )
        without_averaging = settings.replace(averaging="none", ema_decay=0.99, swa_start=0.75)  # see AveragedWeights
        self.callbacks = Callbacks(build_callbacks(without_averaging, folder, self.checkpoints))
        self._parts: dict[str, Stateful] = {
            "progress": self.state,
            "gradient_step": self._gradients,
            "meter": self.meter,
            "nonfinite": self._nonfinite,
            "callbacks": self.callbacks,
        }
        if self._resumed:
            for name, part in self._parts.items():
                part.load_state_dict(self._resumed[name])
            logger.info("Resuming after step %d of %d", self.state.step, self.total_steps)
            forget_missing_best(self.checkpoints, self.state)

    def on_train_start(self) -> None:
        self.interruption.listen()  # Lightning has replaced the handlers
        self.callbacks.on_train_begin(self.state)
        if is_due(self.run.settings.logging.logging_steps, self.state):
            self._evaluate()  # skipped if done before the interruption
        self.trainer.should_stop = self.state.should_stop

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Dropout depends only on the position in training, so that resumed runs give identical results.
        place = (self.run.settings.optimisation.seed, self.current_epoch, batch_idx, rank())
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        last_round = (batch_idx + 1) % self._rounds == 0
        loss = self.callbacks.around_backward(self.state, partial(self._backward, batch, last_round))
        self.meter.add_loss(loss)
        self._computed_tokens += batch["input_ids"].numel()
        self._batch_rows += len(batch["input_ids"])
        if last_round:
            self._end_step(batch_idx // self._rounds)

    def _backward(self, batch: dict[str, Any], last_round: bool, last: bool = True) -> Tensor:
        strategy = self.trainer.strategy
        exchanges = not isinstance(strategy, DDPStrategy) or (last and last_round)
        with nullcontext() if exchanges else cast(DDPStrategy, strategy).block_backward_sync():
            with self.run.precision.autocast():
                loss: Tensor = self.callbacks.around_forward(self.state, self._counted_forward, batch).loss
            # DDP averages over ranks; the loss is already divided by the units of all ranks
            self._gradients.backward(loss * world_size(), self.manual_backward)
        return loss.detach()

    def _counted_forward(self, batch: dict[str, Any]) -> Any:
        self._computed_rows += len(batch["input_ids"])
        return self.forward(batch)

    def _end_step(self, step_of_epoch: int) -> None:
        norm = self._gradients.clip(self.run.settings.optimisation.max_grad_norm)
        self._gradients.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        counter = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        counter.increment_ready()  # Lightning only counts steps of its own optimizer wrapper
        counter.increment_completed()
        assert self._sampler is not None
        members = self._sampler.step_windows(step_of_epoch)
        lengths, passes = self._dataset.lengths[members], self._computed_rows / self._batch_rows
        self.state.step += 1
        self._nonfinite.add(self.state.step, members, norm)
        flops = passes * self._encoder_cost.of_training(lengths)
        self.meter.add_step(int(self._counts[members].sum()), int(lengths.sum()), self._computed_tokens, flops)
        self._computed_tokens = self._computed_rows = self._batch_rows = 0
        self.callbacks.on_step(self.state)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % self._rounds:
            return
        logging_settings, state = self.run.settings.logging, self.state
        if is_due(logging_settings.log_loss_steps, state):
            self._log()
        self._interrupted = self.interruption.seen_by_any() and state.step < state.total_steps
        if is_due(logging_settings.logging_steps, state) and not self._interrupted:
            self._evaluate()
        self.trainer.should_stop = state.should_stop
        if not self.trainer.is_last_batch:
            self._save_if_due()

    def on_train_epoch_end(self) -> None:
        if self.trainer.is_last_batch:  # Lightning has now counted the epoch as complete
            self._save_if_due()

    def _save_if_due(self) -> None:
        if self.checkpoints.is_due(self.state) or self._interrupted:
            self.save_checkpoint()
        if self._interrupted:
            logger.info("Stopped after step %d; resume with --resume_from_checkpoint auto", self.state.step)
            raise Interrupted

    def save_checkpoint(self) -> None:
        """Write last.ckpt."""
        self.trainer.save_checkpoint(self.run.folder.last_lightning_checkpoint)

    def on_train_end(self) -> None:
        if self.meter.has_news:
            self._log()
        self.callbacks.on_train_end(self.state)

    def _log(self) -> None:
        self.meter.report(self.state)
        self.state.gradient_norm, self.state.skipped_steps = self._nonfinite.look(), self._nonfinite.total
        self.state.memory_gib = peak_memory(self.run.device)
        self.callbacks.on_log(self.state)

    def _evaluate(self) -> None:
        """Score dev, with averaged weights if enabled."""
        if not self.run.settings.logging.evaluate_during_training or self.state.evaluated_step == self.state.step:
            return
        with self.meter.paused(), self._averaged_weights():
            self.callbacks.before_evaluate(self.state)
            self.score_dev(self.state)
            if self.state.evaluated_step == self.state.step:
                self.callbacks.on_evaluate(self.state)
            self.callbacks.after_evaluate(self.state)
        self.model.train()

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        averaging = [one for one in self.trainer.callbacks if isinstance(one, WeightAveraging)]  # type: ignore[attr-defined]
        for one in averaging:
            one.on_validation_epoch_start(self.trainer, self)
        yield
        for one in averaging:
            one.on_validation_epoch_end(self.trainer, self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        checkpoint |= {"order": self._order, "settings": self.run.settings.flat(), "model": self._described()}
        checkpoint["training"] = parts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        source = str(self._trainer.ckpt_path) if self._trainer else "the checkpoint"
        shapes = {name: tuple(weight.shape) for name, weight in self.state_dict().items()}
        check_checkpoint(checkpoint, self.run.settings.flat(), self._described(), shapes, source)
        if self._sampler and checkpoint["order"] != self._order:
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
            if hasattr(module, "callbacks"):
                module.callbacks.close()
    nn.Module.to(model, run.device)  # Lightning moves it to the CPU
    if module.checkpoints.has_best:
        restore_best(module.checkpoints.best_folder, model)
    run_on_main(
        lambda: write_json(run.folder.train_results, training_results(module.state, module.meter, module.checkpoints))
    )
    publish_model(run.folder, run.settings, model, module.tokenizer)
    logger.info("Trained %d steps; model written to %s", module.state.step, run.folder.path)
