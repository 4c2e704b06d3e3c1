"""The training loop: the same on a CPU, one GPU, DataParallel and torch.distributed."""

import itertools
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from analysis.metrics import Score
from callbacks import Callbacks, Checkpoints, TrainState
from common.durable import remove_folder
from models.tagger import Tagger
from processors.features.batching import BucketBatchSampler
from processors.features.dataset import FeatureDataset
from tools.callback_setup import build_callbacks
from tools.checkpoint import (
    Stateful,
    check_options,
    checkpoint_to_resume,
    load_training_state,
    write_checkpoint,
    write_model,
)
from tools.data import load_and_cache_examples
from tools.distributed import is_main, rank, run_on_main, send_from_main, world_size
from tools.evaluate import SplitScores, check_dataset, score_dataset
from tools.interruption import Interrupted, watch_for_interruption
from tools.loading import adopt_model
from tools.meter import Meter, NonFiniteSteps, encoder_cost, peak_flops, peak_memory
from tools.optimizer import build_optimizer, build_schedule, freeze
from tools.precision import GradientStep
from tools.preparation import checkpoint_layers
from tools.run import Run
from tools.run_folder import write_json
from tools.settings import OptimisationSettings
from tools.weights import restore_weights


class Step(NamedTuple):
    """What one optimiser step learns from: the windows of all ranks, and this rank's batches, one a round."""

    windows: NDArray[np.int64]
    batches: list[dict[str, Tensor]]


class StepFeed:
    """Batches of like length for this rank, a list for each optimiser step.

    Args:
        optimisation: batch sizes, accumulation rounds, seed, workers.
        dataset: the windows to learn from.
        n_gpu: GPUs of this process.
    """

    def __init__(self, optimisation: OptimisationSettings, dataset: FeatureDataset, n_gpu: int = 0) -> None:
        self._rounds = optimisation.gradient_accumulation_steps
        self._sampler = BucketBatchSampler(
            dataset.lengths,
            batch_size=optimisation.per_gpu_train_batch_size * max(1, n_gpu),
            rounds=self._rounds,
            rank=rank(),
            world_size=world_size(),
            seed=optimisation.seed,
            max_tokens=optimisation.max_batch_tokens * max(1, n_gpu),
        )
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._sampler,
            collate_fn=dataset.collate,
            num_workers=optimisation.num_workers,
            pin_memory=n_gpu > 0,
            generator=torch.Generator(),  # its seeds for workers must not come from the generator that dropout uses
        )
        self._epoch = self._next_step = 0
        self.steps_per_epoch = self._sampler.steps  # of the first; with a token budget others differ by a few

    def steps(self, count: int) -> Iterator[Step]:
        """The next so many steps."""
        while count > 0:
            self._sampler.set_epoch(self._epoch, self._next_step)
            batches = iter(self._loader)
            for step in range(self._next_step, min(self._sampler.steps, self._next_step + count)):
                self._next_step = step + 1
                count -= 1
                yield Step(self._sampler.step_windows(step), list(itertools.islice(batches, self._rounds)))
            if self._next_step == self._sampler.steps:
                self._epoch, self._next_step = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "next_step": self._next_step, "order": self._sampler.order_digest}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on where another feed stood.

        Raises:
            ValueError: the data or its order is not the other one's.
        """
        self._epoch, self._next_step = saved["epoch"], saved["next_step"]
        self._sampler.set_epoch(self._epoch, self._next_step)
        if self._sampler.order_digest != saved["order"]:
            raise ValueError(
                "the training data comes in another order than before: keep the data, --seed, --train_max_seq_length "
                "and the windows of a step (batch size x GPUs x processes x --gradient_accumulation_steps)"
            )


logger = logging.getLogger(__name__)


class Training:
    """A model on its way from the first step to the last.

    Args:
        run: settings, device, folder.
        train_dataset: the windows to learn from.
        model: on its device, with the labels of the data, after this.
        tokenizer: is written beside the model.
    """

    def __init__(
        self, run: Run, train_dataset: FeatureDataset, model: Tagger, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        settings, optimisation, machine = run.settings, run.settings.optimisation, run.settings.machine
        set_seed(optimisation.seed + rank())
        self._run = run = adopt_model(run, model)
        check_dataset(train_dataset, model)
        self._dataset, self._model = train_dataset, model
        self._feed = StepFeed(optimisation, train_dataset, run.n_gpu)
        total_steps = count_steps(optimisation, self._feed.steps_per_epoch)
        freeze(optimisation, model)
        if machine.gradient_checkpointing:
            checkpoint_layers(model)
        optimizer = build_optimizer(optimisation, model, settings.head)
        if machine.shard_optimizer:
            from tools.sharding import (
                sharded,
            )  # takes seconds, for torch then compiles all of its functional optimisers

            optimizer = sharded(optimizer)
        self._schedule = build_schedule(optimisation, optimizer, total_steps)
        self._gradient_step = GradientStep(run.precision, optimisation.max_grad_norm, model, optimizer)
        self._parallel_model = _parallel(run, self._gradient_step.model)
        self._dev_dataset = dev_dataset_of(run, tokenizer)
        self._encoder_cost = encoder_cost(model)
        self._rows = 0  # that the forward passes of a step computed
        self.meter = Meter(run.device, peak_flops(run.device, run.precision.dtype, run.n_gpu))
        self._nonfinite = NonFiniteSteps(
            train_dataset, tokenizer, run.folder.nonfinite_steps, optimisation.max_nonfinite_steps
        )
        self.state = TrainState(model, optimizer, total_steps, self._feed.steps_per_epoch, is_main(), model.label_names)
        self.checkpoints = Checkpoints(
            run.folder,
            save_model=lambda folder: write_model(folder, settings, model, tokenizer),
            save_checkpoint=lambda folder: write_checkpoint(folder, settings, model, tokenizer, self._parts),
            every=self._feed.steps_per_epoch if settings.logging.save_steps < 0 else settings.logging.save_steps,
            keep=settings.logging.save_total_limit,
            remove=remove_folder,
            metric=settings.logging.metric_for_best_model,
        )
        self.callbacks = Callbacks(build_callbacks(settings, run.folder, self.checkpoints))
        self._parts: dict[str, Stateful] = {
            "progress": self.state,
            "feed": self._feed,
            "optimizer": optimizer,
            "schedule": self._schedule,
            "gradient_step": self._gradient_step,
            "meter": self.meter,
            "nonfinite": self._nonfinite,
            "callbacks": self.callbacks,
        }
        logger.info("Training %d steps of %s", total_steps, _batch_plan(optimisation, run.n_gpu))

    def resume(self) -> None:
        """Goes to where a checkpoint was written, if the arguments name one."""
        checkpoint = checkpoint_to_resume(self._run.settings.actions.resume_from_checkpoint, self._run.folder)
        if checkpoint is None:
            return
        check_options(self._run.settings, checkpoint)
        load_training_state(checkpoint, self._model, self._parts)
        logger.info("Going on after step %d of %d, from %s", self.state.step, self.state.total_steps, checkpoint)
        forget_missing_best(self.checkpoints, self.state)

    def remaining_steps(self) -> Iterator[Step]:
        """What is left to learn from, until a callback wants to stop."""
        for step in self._feed.steps(self.state.total_steps - self.state.step):
            if self.state.should_stop:
                return
            yield step

    def learn(self, step: Step) -> None:
        """One optimiser step."""
        words = int(self._dataset.word_counts[step.windows].sum())
        self._parallel_model.train()
        for round_, batch in enumerate(step.batches, start=1):
            inputs = {name: tensor.to(self._run.device, non_blocking=True) for name, tensor in batch.items()}
            last_round = round_ == self._run.settings.optimisation.gradient_accumulation_steps
            backward = partial(self._backward, {**inputs, "num_items_in_batch": words}, last_round)
            self.meter.add_loss(self.callbacks.around_backward(self.state, backward))
        norm = self._gradient_step.step()
        passes, self._rows = self._rows / sum(len(batch["input_ids"]) for batch in step.batches), 0
        self._schedule.step()
        self.state.step += 1
        self._nonfinite.add(self.state.step, step.windows, norm)
        lengths = self._dataset.lengths[step.windows]
        computed = sum(batch["input_ids"].numel() for batch in step.batches)
        flops = passes * self._encoder_cost.of_training(lengths)
        self.meter.add_step(words, int(lengths.sum()), computed, flops)
        self.callbacks.on_step(self.state)

    def _backward(self, batch: dict[str, Any], last_round: bool, last: bool = True) -> Tensor:
        with _gradient_sync(self._parallel_model, last and last_round):
            with self._run.precision.autocast():
                loss = self.callbacks.around_forward(self.state, self._forward, batch).loss.sum()
            # DDP averages gradients over ranks; the loss is already divided by the words of all of them
            self._gradient_step.backward(loss * world_size())
        return loss.detach()

    def _forward(self, batch: dict[str, Any]) -> Any:
        self._rows += len(batch["input_ids"])
        return self._parallel_model(**batch)

    def log(self) -> None:
        """Looks at what the device has counted."""
        self.meter.report(self.state)
        self.state.gradient_norm, self.state.skipped_steps = self._nonfinite.look(), self._nonfinite.total
        self.state.memory_gib = peak_memory(self._run.device)
        self.callbacks.on_log(self.state)

    def evaluate(self) -> None:
        """Scores dev, if there is one and this step was not scored yet."""
        state = self.state
        if self._dev_dataset is None or state.evaluated_step == state.step:
            return
        with self.meter.paused():
            self.callbacks.before_evaluate(state)
            set_scores(state, score_dataset(self._run, self._model, self._dev_dataset, "Evaluating"))
            self.callbacks.on_evaluate(state)
            self.callbacks.after_evaluate(state)


def training_results(state: TrainState, meter: Meter, checkpoints: Checkpoints) -> dict[str, Any]:
    """What ``train_results.json`` holds: totals of all steps, including those before an interruption."""
    total = meter.total
    return {
        "steps": state.step,
        "skipped_steps": state.skipped_steps,
        "loss": total.loss / total.steps,
        "best_score": checkpoints.best_score if checkpoints.has_best else None,
        "seconds": total.seconds,
        "words_per_second": meter.words_per_second,
        "padding_share": 1 - total.tokens / total.computed_tokens,
    }


def set_scores(state: TrainState, scores: SplitScores) -> None:
    """Tells callbacks the scores of dev."""
    state.metrics, state.evaluated_step = scores.headline(), state.step
    state.type_metrics = {name: _rates(score) for name, score in scores.entities.types.items()}
    state.examples = scores.examples
    logger.info("Epoch %.2f: dev F1 %.4f, loss %.4f", state.epoch, scores.entities.micro.f1, scores.loss)


def _rates(score: Score) -> dict[str, float]:
    return {"precision": score.precision, "recall": score.recall, "f1": score.f1}


def count_steps(optimisation: OptimisationSettings, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole training."""
    if optimisation.max_steps > 0:
        return optimisation.max_steps
    return max(
        1, math.ceil(round(optimisation.num_train_epochs * steps_per_epoch, 6))
    )  # 1.1 * 110 is a little more than 121


def _parallel(run: Run, model: nn.Module) -> nn.Module:
    """The model as it is, or spread over this process's GPUs, or joined with the other processes'."""
    if world_size() > 1:
        devices = [run.device] if run.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)
    return DataParallel(model) if run.n_gpu > 1 else model


def _gradient_sync(model: nn.Module, now: bool) -> AbstractContextManager[Any]:
    """Ranks exchange gradients once a step, in its last backward pass."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not now else nullcontext()


def dev_dataset_of(run: Run, tokenizer: PreTrainedTokenizerBase) -> FeatureDataset | None:
    if not run.settings.logging.evaluate_during_training:
        return None
    if not run.corpus.has("dev"):
        logger.warning("There is no dev split: the model is not scored while training, and the last one is kept")
        return None
    return load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "dev")


def _batch_plan(optimisation: OptimisationSettings, n_gpu: int) -> str:
    """What a step consists of, for the log."""
    batch = optimisation.max_batch_tokens or optimisation.per_gpu_train_batch_size
    unit = "tokens" if optimisation.max_batch_tokens else "windows"
    rounds = optimisation.gradient_accumulation_steps
    shares = {"GPUs": max(1, n_gpu), "processes": world_size(), "rounds": rounds}
    factors = [f"{batch} {unit} per batch", *(f"{factor} {name}" for name, factor in shares.items() if factor > 1)]
    return " x ".join(factors)


def train(
    run: Run, train_dataset: FeatureDataset, model: Tagger, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, float]:
    """Fine-tunes the model in place.

    The loss of a step is the mean over all words of all its batches, whatever the number of processes and
    accumulation rounds. Where dev is scored on the way, the model ends with the best weights seen. With
    ``--resume_from_checkpoint`` the training goes on as if it had never stopped.

    Returns:
        The number of optimiser steps, and the mean loss a word over the whole training.

    Raises:
        Interrupted: SIGTERM or SIGUSR1 came; a checkpoint is written.
        FloatingPointError: too many steps in a row were left out, since they were not finite.
    """
    training = Training(run, train_dataset, model, tokenizer)
    training.resume()
    logging_steps, log_loss_steps = run.settings.logging.logging_steps, run.settings.logging.log_loss_steps
    state, callbacks, checkpoints = training.state, training.callbacks, training.checkpoints

    with watch_for_interruption() as interruption, closing(callbacks):
        callbacks.on_train_begin(state)
        if is_due(logging_steps, state):
            training.evaluate()  # unless that was done before the interruption
        for step in training.remaining_steps():
            training.learn(step)
            if is_due(log_loss_steps, state):
                training.log()
            interrupted = interruption.seen_by_any()
            if is_due(logging_steps, state) and not interrupted:
                training.evaluate()
            if checkpoints.is_due(state) or interrupted:
                checkpoints.save(state)
            if interrupted:
                logger.info("Stopped after step %d; go on with --resume_from_checkpoint auto", state.step)
                raise Interrupted
        if training.meter.has_news:
            training.log()  # a callback ended the training between two looks
        callbacks.on_train_end(state)

    if checkpoints.has_best:
        restore_best(checkpoints.best_folder, model)
    results = training_results(state, training.meter, checkpoints)
    logger.info(
        "Trained %(steps)d steps: %(words_per_second).0f words/s in %(seconds).0f s without evaluation", results
    )
    run_on_main(lambda: write_json(run.folder.train_results, results))
    return results["steps"], results["loss"]


def is_due(every: int, state: TrainState) -> bool:
    """Whether something is to be done after this step: every so many, each epoch for -1, and in the end."""
    interval = every if every > 0 else state.steps_per_epoch
    return state.step > 0 and (state.step % interval == 0 or state.step == state.total_steps or state.should_stop)


def forget_missing_best(checkpoints: Checkpoints, state: TrainState) -> None:
    """Where the folder of the best model is missing, the next model that is scored is the best so far."""
    best = checkpoints.best_folder
    if checkpoints.has_best and not run_on_main(best.is_dir):
        checkpoints.forget_best(state)
        logger.warning("%s has no %s: the best model is one of those scored from now on", best.parent, best.name)


def restore_best(folder: Path, model: PreTrainedModel) -> None:
    """Rank 0 reads the best weights that it wrote, and sends them to the others."""
    run_on_main(lambda: restore_weights(model, folder))
    send_from_main(model.state_dict().values())
