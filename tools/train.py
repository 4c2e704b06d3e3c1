"""The training loop: the same on a CPU, one GPU, DataParallel and torch.distributed."""

import logging
import math
from collections.abc import Mapping
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from callbacks import Callbacks, Checkpoints, TrainState
from common.durable import remove_folder
from models.tagger import Tagger
from processors.features.batching import BucketBatchSampler, StepFeed
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
from tools.distributed import (
    Interrupted,
    is_main,
    rank,
    run_on_main,
    send_from_main,
    watch_for_interruption,
    world_size,
)
from tools.evaluate import SplitScores, check_dataset, score_dataset
from tools.heads import restore_weights
from tools.loading import adopt_model
from tools.meter import Meter, NonFiniteSteps, encoder_cost, peak_flops, peak_memory
from tools.optimizer import build_optimizer, build_schedule, freeze
from tools.precision import GradientStep
from tools.preparation import checkpoint_layers
from tools.run import Run
from tools.run_folder import write_json
from tools.settings import OptimisationSettings

logger = logging.getLogger(__name__)


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
    settings, optimisation, logging_ = run.settings, run.settings.optimisation, run.settings.logging
    set_seed(optimisation.seed + rank())
    run = adopt_model(run, model)
    check_dataset(train_dataset, model)
    train_dataset.encode = model.encode
    feed = _step_feed(optimisation, train_dataset, run.n_gpu)
    total_steps = count_steps(optimisation, feed.steps_per_epoch)

    freeze(optimisation, model)
    if settings.machine.gradient_checkpointing:
        checkpoint_layers(model)
    optimizer = build_optimizer(optimisation, model, settings.head)
    if settings.machine.shard_optimizer:
        from tools.sharding import sharded  # slow import: torch compiles its functional optimisers

        optimizer = sharded(optimizer)
    schedule = build_schedule(optimisation, optimizer, total_steps)
    gradients = GradientStep(run.precision, model, optimizer)
    parallel_model = _parallel(run, gradients.model)

    dev_dataset = dev_dataset_of(run, tokenizer)
    cost = encoder_cost(model)
    meter = Meter(run.device, peak_flops(run.device, run.precision.dtype, run.n_gpu))
    nonfinite = NonFiniteSteps(train_dataset, tokenizer, run.folder.nonfinite_steps, optimisation.max_nonfinite_steps)
    state = TrainState(model, optimizer, total_steps, feed.steps_per_epoch, is_main(), model.label_names)
    parts: dict[str, Stateful] = {}  # what a checkpoint keeps besides the model
    checkpoints = Checkpoints(
        run.folder,
        save_model=lambda folder: write_model(folder, settings, model, tokenizer),
        save_checkpoint=lambda folder: write_checkpoint(folder, settings, model, tokenizer, parts),
        every=feed.steps_per_epoch if logging_.save_steps < 0 else logging_.save_steps,
        keep=logging_.save_total_limit,
        remove=remove_folder,
        metric=logging_.metric_for_best_model,
    )
    callbacks = Callbacks(build_callbacks(settings, run.folder, checkpoints))
    parts |= {"progress": state, "feed": feed, "optimizer": optimizer, "schedule": schedule}
    parts |= {"gradient_step": gradients, "meter": meter, "nonfinite": nonfinite, "callbacks": callbacks}
    logger.info("Training %d steps of %s", total_steps, _batch_plan(optimisation, run.n_gpu))
    _resume(run, model, state, checkpoints, parts)
    rows = 0  # computed by the forward passes of a step

    def forward(batch: dict[str, Any]) -> Any:
        nonlocal rows
        rows += len(batch["input_ids"])
        return parallel_model(**batch)

    def forward_backward(batch: dict[str, Any], is_last_round: bool, last: bool = True) -> Tensor:
        """One pass of a batch, and its loss; ranks exchange gradients once per step, in its last pass."""
        is_last = last and is_last_round
        skips = isinstance(parallel_model, DistributedDataParallel) and not is_last
        with parallel_model.no_sync() if skips else nullcontext():  # type: ignore[operator]
            with run.precision.autocast():
                loss = callbacks.around_forward(state, forward, batch).loss.sum()
            # DDP averages gradients over ranks; the loss is already divided by the words of all of them
            gradients.backward(loss * world_size())
        return loss.detach()

    def log() -> None:
        meter.report(state)
        state.gradient_norm, state.skipped_steps = nonfinite.look(), nonfinite.total
        state.memory_gib = peak_memory(run.device)
        callbacks.on_log(state)

    def evaluate() -> None:
        if dev_dataset is None or state.evaluated_step == state.step:  # an interrupted run may have scored this step
            return
        with meter.paused():
            callbacks.before_evaluate(state)
            set_scores(state, score_dataset(run, model, dev_dataset, "Evaluating"))
            callbacks.on_evaluate(state)
            callbacks.after_evaluate(state)

    with watch_for_interruption() as interruption, closing(callbacks):
        callbacks.on_train_begin(state)
        if is_due(logging_.logging_steps, state):
            evaluate()
        for step in feed.steps(total_steps - state.step):
            if state.should_stop:
                break
            words = int(train_dataset.word_counts[step.windows].sum())
            parallel_model.train()
            rows = 0
            for round_, batch in enumerate(step.batches, start=1):
                inputs = {name: tensor.to(run.device, non_blocking=True) for name, tensor in batch.items()}
                backward = partial(
                    forward_backward, {**inputs, "num_items_in_batch": words}, round_ == len(step.batches)
                )
                meter.add_loss(callbacks.around_backward(state, backward))
            norm = gradients.clip(optimisation.max_grad_norm)
            gradients.step()
            schedule.step()
            state.step += 1

            nonfinite.add(state.step, step.windows, norm)
            lengths = train_dataset.lengths[step.windows]
            computed = sum(batch["input_ids"].numel() for batch in step.batches)
            flops = rows / sum(len(batch["input_ids"]) for batch in step.batches) * cost.of_training(lengths)
            meter.add_step(words, int(lengths.sum()), computed, flops)
            callbacks.on_step(state)
            if is_due(logging_.log_loss_steps, state):
                log()
            interrupted = interruption.seen_by_any()
            if is_due(logging_.logging_steps, state) and not interrupted:
                evaluate()
            if checkpoints.is_due(state) or interrupted:
                checkpoints.save(state)
            if interrupted:
                logger.info("Stopped after step %d; resume with --resume_from_checkpoint auto", state.step)
                raise Interrupted
        if meter.has_news:  # a callback ended the training between two logs
            log()
        callbacks.on_train_end(state)

    if checkpoints.has_best:
        restore_best(checkpoints.best_folder, model)
    results = training_results(state, meter, checkpoints)
    logger.info(
        "Trained %(steps)d steps: %(words_per_second).0f words/s in %(seconds).0f s without evaluation", results
    )
    run_on_main(lambda: write_json(run.folder.train_results, results))
    return results["steps"], results["loss"]


def _step_feed(optimisation: OptimisationSettings, dataset: FeatureDataset, n_gpu: int) -> StepFeed:
    """Batches of this rank, one list per optimiser step."""
    sampler = BucketBatchSampler(
        dataset.lengths,
        batch_size=optimisation.per_gpu_train_batch_size * max(1, n_gpu),
        rounds=optimisation.gradient_accumulation_steps,
        rank=rank(),
        world_size=world_size(),
        seed=optimisation.seed,
        max_tokens=optimisation.max_batch_tokens * max(1, n_gpu),
    )
    return StepFeed(dataset, sampler, num_workers=optimisation.num_workers, pin_memory=n_gpu > 0)


def count_steps(optimisation: OptimisationSettings, steps_per_epoch: int) -> int:
    """Number of optimiser steps of the whole training."""
    if optimisation.max_steps > 0:
        return optimisation.max_steps
    steps = round(optimisation.num_train_epochs * steps_per_epoch, 6)  # in floating point, 1.1 * 110 > 121
    return max(1, math.ceil(steps))


def _parallel(run: Run, model: nn.Module) -> nn.Module:
    """Wrap the model in DistributedDataParallel or DataParallel if needed."""
    if world_size() > 1:
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


def set_scores(state: TrainState, scores: SplitScores) -> None:
    """Store the dev scores in the state, for the callbacks."""
    state.metrics, state.evaluated_step, state.examples = scores.headline(), state.step, scores.examples
    types = scores.entities.types.items()
    state.type_metrics = {name: {"precision": one.precision, "recall": one.recall, "f1": one.f1} for name, one in types}
    logger.info("Epoch %.2f: dev F1 %.4f, loss %.4f", state.epoch, scores.entities.micro.f1, scores.loss)


def _batch_plan(optimisation: OptimisationSettings, n_gpu: int) -> str:
    """Describe the batches of a step, for the log."""
    batch = optimisation.max_batch_tokens or optimisation.per_gpu_train_batch_size
    unit = "tokens" if optimisation.max_batch_tokens else "windows"
    rounds = optimisation.gradient_accumulation_steps
    shares = {"GPUs": max(1, n_gpu), "processes": world_size(), "rounds": rounds}
    factors = [f"{batch} {unit} per batch", *(f"{factor} {name}" for name, factor in shares.items() if factor > 1)]
    return " x ".join(factors)


def _resume(
    run: Run, model: Tagger, state: TrainState, checkpoints: Checkpoints, parts: Mapping[str, Stateful]
) -> None:
    """Resume from the checkpoint that the settings name, if any."""
    checkpoint = checkpoint_to_resume(run.settings.actions.resume_from_checkpoint, run.folder)
    if checkpoint is None:
        return
    check_options(run.settings, checkpoint)
    load_training_state(checkpoint, model, parts)
    logger.info("Resuming after step %d of %d, from %s", state.step, state.total_steps, checkpoint)
    forget_missing_best(checkpoints, state)


def forget_missing_best(checkpoints: Checkpoints, state: TrainState) -> None:
    """Reset the best score if the folder of the best model is missing."""
    best = checkpoints.best_folder
    if checkpoints.has_best and not run_on_main(best.is_dir):
        checkpoints.forget_best(state)
        logger.warning(
            "%s has no %s: the best model will be selected from future evaluations only", best.parent, best.name
        )


def is_due(every: int, state: TrainState) -> bool:
    """Whether an action is due after this step: every ``every`` steps, every epoch if -1, and at the end."""
    interval = every if every > 0 else state.steps_per_epoch
    return state.step > 0 and (state.step % interval == 0 or state.step == state.total_steps or state.should_stop)


def restore_best(folder: Path, model: PreTrainedModel) -> None:
    """Load the best weights on rank 0, and broadcast them."""
    run_on_main(lambda: restore_weights(model, folder))
    send_from_main(model.state_dict().values())


def training_results(state: TrainState, meter: Meter, checkpoints: Checkpoints) -> dict[str, Any]:
    """Summary of the training over all steps, including those before an interruption."""
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
