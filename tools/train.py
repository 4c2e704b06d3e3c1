"""The training loop: the same on a CPU, one GPU, DataParallel and torch.distributed."""

import json
import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from callbacks import Callbacks, Checkpoints, TrainState
from common.durable import remove_folder
from common.memory import peak_memory
from common.run_files import RunFolder
from models.tagger import Tagger
from processors.features.batching import BucketBatchSampler, StepFeed, draw_by_weight
from processors.features.dataset import FeatureDataset
from tools import distributed
from tools.callback_setup import build_callbacks
from tools.checkpoint import Stateful, checkpoint_to_resume, load_training_state, refuse_kept_options, write_model
from tools.data import encoder_of_training, load_and_cache_examples
from tools.embedding_gradient import EmbeddingGradient
from tools.evaluate import check_dataset, score_dataset
from tools.heads import label_names, restore_weights
from tools.loading import adopt_model
from tools.meter import Meter, NonFiniteSteps, described_window, encoder_cost, peak_flops
from tools.optimizer import build_optimizer, build_schedule, checkpoint_layers, freeze
from tools.precision import GradientStep
from tools.run import Run
from tools.run_folder import write_json
from tools.settings import Settings
from tools.training_settings import OptimisationSettings

logger = logging.getLogger(__name__)


class Training:
    """A training under way: its state, its parts, and what happens around each step.

    Both `train` and the Lightning module drive one.

    Args:
        run: settings, folder, device and precision.
        model: model, without wrappers.
        tokenizer: tokenizer of the encoder.
        optimizer: optimiser of the model.
        dataset: train split, with the ``lengths`` of its items in tokens.
        counts: units per item that the loss is averaged over, such as words.
        steps_per_epoch: optimiser steps of an epoch.
        describe: content of the item of an index, for the report of steps that are not finite.
        score_dev: scores dev and stores the scores in the state; ``None``: dev is not scored.
    """

    def __init__(
        self,
        run: Run,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        optimizer: Optimizer,
        dataset: Any,
        counts: NDArray[np.int32],
        steps_per_epoch: int,
        *,
        describe: Callable[[int], dict[str, Any]],
        score_dev: Callable[[TrainState], None] | None,
    ) -> None:
        optimisation, logging_ = run.settings.optimisation, run.settings.logging
        self._run, self._dataset, self._counts, self._score_dev = run, dataset, counts, score_dev
        total_steps = count_steps(optimisation, steps_per_epoch)
        names = label_names(model.config)
        self.state = TrainState(model, optimizer, total_steps, steps_per_epoch, distributed.is_main(), names)
        self.gradients = GradientStep(run.precision, model, optimizer, _kept_gradient(run, model))
        self._cost = encoder_cost(model)
        self._meter = Meter(run.device, peak_flops(run.device, run.precision.dtype, run.n_gpu))
        self._nonfinite = NonFiniteSteps(describe, run.folder.nonfinite_steps, optimisation.max_nonfinite_steps)
        self.checkpoints = Checkpoints(
            run.folder,
            save_model=lambda folder: write_model(folder, run.settings, model, tokenizer),
            save_checkpoint=lambda folder: write_model(folder, run.settings, model, tokenizer, self.parts),
            every=logging_.save_steps,
            keep=logging_.save_total_limit,
            remove=remove_folder,
            metric=logging_.metric_for_best_model,
        )
        self.callbacks = Callbacks(build_callbacks(run, self.checkpoints))
        self.parts: dict[str, Stateful] = {  # what a checkpoint keeps besides the model
            "progress": self.state,
            "gradient_step": self.gradients,
            "meter": self._meter,
            "nonfinite": self._nonfinite,
            "callbacks": self.callbacks,
        }
        self._computed_rows = self._batch_rows = self._computed_tokens = 0  # of a step, on this rank

    def resumed(self, source: object) -> None:
        """Report that the parts were loaded. Resets the best score if the folder of the best model is missing."""
        logger.info("Resuming after step %d of %d, from %s", self.state.step, self.state.total_steps, source)
        best = self.checkpoints.best_folder
        if self.checkpoints.has_best and not distributed.run_on_main(best.is_dir):
            self.checkpoints.best_score, self.state.best_metrics = float("-inf"), {}
            message = "%s has no %s: the best model will be selected from future evaluations only"
            logger.warning(message, best.parent, best.name)

    def begin(self) -> None:
        """Begin or resume training; an interrupted run may still have to score dev."""
        self.callbacks.call("on_train_begin", self.state)
        self.evaluate_if_due()

    def backward(
        self,
        forward: Callable[[dict[str, Any]], Any],
        batch: dict[str, Any],
        is_last_round: bool,
        unsynchronised: Callable[[], AbstractContextManager[Any]],
        run_backward: Callable[[Tensor], Any] = Tensor.backward,
    ) -> None:
        """Accumulate the gradients of a batch.

        Args:
            forward: computes the output of a batch, with its ``loss``.
            unsynchronised: context in which ranks do not exchange gradients; they do once per step, in its last pass.
            run_backward: runs the backward pass of a scaled loss.
        """

        def counted(batch: dict[str, Any]) -> Any:
            self._computed_rows += len(batch["input_ids"])
            return forward(batch)

        def one_pass(last: bool = True) -> Tensor:
            with nullcontext() if last and is_last_round else unsynchronised():
                with self._run.precision.autocast():
                    loss: Tensor = self.callbacks.around_forward(self.state, counted, batch).loss.sum()
                # DDP averages gradients over ranks; the loss is already divided by the units of all of them
                self.gradients.backward(loss * distributed.world_size(), run_backward)
            return loss.detach()

        self.state.model.train()
        self._meter.add_loss(self.callbacks.around_backward(self.state, one_pass))
        self._batch_rows += len(batch["input_ids"])
        self._computed_tokens += batch["input_ids"].numel()

    def end_step(self, items: NDArray[np.int64], schedule: LRScheduler) -> None:
        """Update the weights, count the step, and log if due.

        Args:
            items: indices of the items in the step, of all ranks.
        """
        norm = self.gradients.clip(self._run.settings.optimisation.max_grad_norm)
        self.gradients.step()
        schedule.step()
        self.state.step += 1
        self._nonfinite.add(self.state.step, items, norm)
        lengths = self._dataset.lengths[items]
        flops = self._computed_rows / self._batch_rows * self._cost.of_training(lengths)
        self._meter.add_step(int(self._counts[items].sum()), int(lengths.sum()), self._computed_tokens, flops)
        self._computed_rows = self._batch_rows = self._computed_tokens = 0
        self.callbacks.call("on_step", self.state)
        if self.state.is_due(self._run.settings.logging.log_loss_steps):
            self._log()

    def evaluate_if_due(self) -> None:
        """Score dev if it is time, unless this step is scored already."""
        state = self.state
        is_due = state.is_due(self._run.settings.logging.logging_steps)
        if not is_due or self._score_dev is None or state.evaluated_step == state.step:
            return
        with self._meter.paused():
            self.callbacks.call("before_evaluate", state)
            self._score_dev(state)
            if state.evaluated_step == state.step:
                self.callbacks.call("on_evaluate", state)
            self.callbacks.call("after_evaluate", state)

    def end(self) -> None:
        """End training after the last step."""
        if self._meter.has_news:  # a callback ended the training between two logs
            self._log()
        self.callbacks.call("on_train_end", self.state)

    def restore_best(self) -> None:
        """Load the best weights, if there are any, on rank 0, and broadcast them."""
        if self.checkpoints.has_best:
            model: Any = self.state.model
            distributed.run_on_main(lambda: restore_weights(model, self.checkpoints.best_folder))
            distributed.send_from_main(model.state_dict().values())

    def write_results(self) -> dict[str, Any]:
        """Write and return a summary over all steps, including those before an interruption."""
        total = self._meter.total
        results = {
            "steps": self.state.step,
            "skipped_steps": self.state.skipped_steps,
            "loss": total.loss / total.steps,
            "best_score": self.checkpoints.best_score if self.checkpoints.has_best else None,
            "seconds": total.seconds,
            "words_per_second": self._meter.words_per_second,
            "padding_share": 1 - total.tokens / total.computed_tokens,
            "utilisation": self._meter.utilisation,
            "memory_gib": peak_memory(self._run.device),
        }
        distributed.run_on_main(lambda: write_json(self._run.folder.train_results, results))
        return results

    def _log(self) -> None:
        self._meter.report(self.state)
        self.state.gradient_norm, self.state.skipped_steps = self._nonfinite.look(), self._nonfinite.total
        self.state.memory_gib = peak_memory(self._run.device)
        self.callbacks.call("on_log", self.state)


def train(
    run: Run, train_dataset: FeatureDataset, model: Tagger, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, float]:
    """Fine-tunes the model in place.

    The loss of a step is the mean over all words of all its batches, whatever the number of processes and accumulation
    rounds. If dev is scored during training, the model ends with the best weights. With ``--resume_from_checkpoint``
    training continues as if it had never stopped.

    Returns:
        The number of optimiser steps, and the mean loss per word over the whole training.

    Raises:
        Interrupted: SIGTERM or SIGUSR1 was received; a checkpoint is written.
        FloatingPointError: too many consecutive steps were skipped because they were not finite.
    """
    settings, optimisation = run.settings, run.settings.optimisation
    set_seed(optimisation.seed + distributed.rank())
    run = adopt_model(run, model)
    check_dataset(train_dataset, model)
    train_dataset.encode = encoder_of_training(run)
    feed = _step_feed(settings, train_dataset, run.n_gpu)
    total_steps = count_steps(optimisation, feed.steps_per_epoch)

    freeze(optimisation, model)
    checkpoint_layers(settings.machine, model)
    optimizer = build_optimizer(optimisation, model, settings.head)
    if settings.machine.shard_optimizer:
        from tools.sharding import sharded  # slow import: torch compiles its functional optimisers

        optimizer = sharded(optimizer)
    schedule = build_schedule(optimisation, optimizer, total_steps)
    dev_dataset = dev_dataset_of(run, tokenizer)
    training = Training(
        run,
        model,
        tokenizer,
        optimizer,
        train_dataset,
        train_dataset.word_counts,
        feed.steps_per_epoch,
        describe=partial(described_window, train_dataset, tokenizer),
        score_dev=None if dev_dataset is None else partial(score_dev, run, model, dev_dataset),
    )
    state, checkpoints = training.state, training.checkpoints
    training.parts |= {"feed": feed, "optimizer": optimizer, "schedule": schedule}
    parallel_model = _parallel(run, training.gradients.model)
    logger.info("Training %d steps of %s", total_steps, _batch_plan(optimisation, run.n_gpu))
    if checkpoint := checkpoint_to_resume(settings.actions.resume_from_checkpoint, run.folder):
        before = json.loads(RunFolder(checkpoint).settings.read_text("utf-8"))
        refuse_kept_options(settings.flat(), before, str(checkpoint))
        load_training_state(checkpoint, model, training.parts)
        training.resumed(checkpoint)

    def forward(batch: dict[str, Any]) -> Any:
        return parallel_model(**batch)

    def unsynchronised() -> AbstractContextManager[Any]:
        return parallel_model.no_sync() if isinstance(parallel_model, DistributedDataParallel) else nullcontext()

    with distributed.watch_for_interruption() as interruption, closing(training.callbacks):
        training.begin()
        for step in feed.steps(total_steps - state.step):
            if state.should_stop:
                break
            words = int(train_dataset.word_counts[step.windows].sum())
            for round_, batch in enumerate(step.batches, start=1):
                inputs: dict[str, Any] = {"num_items_in_batch": words}
                inputs |= {name: tensor.to(run.device, non_blocking=True) for name, tensor in batch.items()}
                training.backward(forward, inputs, round_ == len(step.batches), unsynchronised)
            training.end_step(step.windows, schedule)
            interrupted = interruption.seen_by_any()
            if not interrupted:
                training.evaluate_if_due()
            if checkpoints.is_due(state) or interrupted:
                checkpoints.save(state)
            if interrupted:
                logger.info("Stopped after step %d; resume with --resume_from_checkpoint auto", state.step)
                raise distributed.Interrupted
        training.end()

    training.restore_best()
    results = training.write_results()
    message = "Trained %(steps)d steps: %(words_per_second).0f words/s in %(seconds).0f s without evaluation"
    logger.info(message, results)
    return results["steps"], results["loss"]


def lengths_to_train(dataset: Any, settings: Settings) -> Any:
    """Tokens of each window for the sampler, as a function of the epoch if contexts are left out at random."""
    dropout = settings.model.context_dropout
    if not dropout:
        return dataset.lengths
    return partial(dataset.begin_epoch, context_dropout=dropout, seed=settings.optimisation.seed)


def draws_to_train(dataset: Any, settings: Settings) -> Callable[[int], NDArray[np.int64]] | None:
    """Windows of an epoch for the sampler, as a function of the epoch; ``None``: all of them."""
    weights = getattr(dataset, "weights", None)
    return None if weights is None else partial(draw_by_weight, weights, seed=settings.optimisation.seed)


def _step_feed(settings: Settings, dataset: FeatureDataset, n_gpu: int) -> StepFeed:
    """Batches of this rank, one list per optimiser step."""
    optimisation = settings.optimisation
    sampler = BucketBatchSampler(
        lengths_to_train(dataset, settings),
        batch_size=optimisation.per_gpu_train_batch_size * max(1, n_gpu),
        rounds=optimisation.gradient_accumulation_steps,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        seed=optimisation.seed,
        max_tokens=optimisation.max_batch_tokens * max(1, n_gpu),
        drawn=draws_to_train(dataset, settings),
    )
    return StepFeed(dataset, sampler, num_workers=optimisation.num_workers, pin_memory=n_gpu > 0)


def count_steps(optimisation: OptimisationSettings, steps_per_epoch: int) -> int:
    """Number of optimiser steps of the whole training."""
    if optimisation.max_steps > 0:
        return optimisation.max_steps
    steps = round(optimisation.num_train_epochs * steps_per_epoch, 6)  # in floating point, 1.1 * 110 > 121
    return max(1, math.ceil(steps))


def _kept_gradient(run: Run, model: PreTrainedModel) -> EmbeddingGradient | None:
    """The gradient of the largest embedding table, if keeping it saves time; DDP and compilers need a dense one."""
    if run.device.type != "cpu" or distributed.world_size() > 1 or run.settings.machine.torch_compile:
        return None
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding) and part.weight.requires_grad]
    return EmbeddingGradient(max(tables, key=lambda table: table.weight.numel())) if tables else None


def _parallel(run: Run, model: nn.Module) -> nn.Module:
    """Wrap the model in DistributedDataParallel or DataParallel if needed."""
    if distributed.world_size() > 1:
        devices = [run.device] if run.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)
    return DataParallel(model) if run.n_gpu > 1 else model


def dev_dataset_of(run: Run, tokenizer: PreTrainedTokenizerBase) -> FeatureDataset | None:
    """Load the dev split, if it exists and is evaluated during training."""
    if not run.settings.logging.evaluate_during_training:
        return None
    if not run.corpus.has("dev"):
        logger.warning("There is no dev split: no evaluation during training, and the last model is kept")
        return None
    return load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "dev")


def score_dev(run: Run, model: Tagger, dataset: FeatureDataset, state: TrainState) -> None:
    """Score dev and store the scores in the state, for the callbacks."""
    scores = score_dataset(run, model, dataset, "Evaluating")
    state.metrics, state.evaluated_step, state.examples = scores.headline(), state.step, scores.examples
    types = scores.entities.types.items()
    state.type_metrics = {name: {"precision": one.precision, "recall": one.recall, "f1": one.f1} for name, one in types}
    logger.info("Epoch %.2f: dev F1 %.4f, loss %.4f", state.epoch, scores.entities.micro.f1, scores.loss)


def _batch_plan(optimisation: OptimisationSettings, n_gpu: int) -> str:
    """Describe the batches of a step, for the log."""
    batch = optimisation.max_batch_tokens or optimisation.per_gpu_train_batch_size
    unit = "tokens" if optimisation.max_batch_tokens else "windows"
    rounds = optimisation.gradient_accumulation_steps
    shares = {"GPUs": max(1, n_gpu), "processes": distributed.world_size(), "rounds": rounds}
    factors = [f"{batch} {unit} per batch", *(f"{factor} {name}" for name, factor in shares.items() if factor > 1)]
    return " x ".join(factors)
