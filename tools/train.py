"""The training loop: the same on a CPU, one GPU, DataParallel and torch.distributed."""

import itertools
import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, set_seed

from callbacks import (
    BEST_FOLDER,
    Callback,
    Callbacks,
    Checkpoints,
    FastGradientMethod,
    Progress,
    TensorBoard,
    TrainState,
)
from models.tagger import Tagger
from processors.batch_sampler import BucketBatchSampler
from processors.feature_dataset import FeatureDataset
from tools.arguments import NerArguments
from tools.data import corpus_of, load_and_cache_examples
from tools.distributed import is_main, rank, send_from_main, sum_over_ranks, world_size
from tools.evaluate import check_labels, score_dataset
from tools.loading import adopt_model
from tools.optimizer import build_optimizer, build_schedule
from tools.precision import GradientStep, autocast
from tools.run_folder import save_model_folder

logger = logging.getLogger(__name__)


def train(
    args: NerArguments, train_dataset: FeatureDataset, model: Tagger, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, float]:
    """Fine-tunes the model in place.

    The loss of a step is the mean over all words of all its batches, whatever the number of processes and
    accumulation rounds. Where dev is scored on the way, the model ends with the best weights seen.

    Returns:
        The number of optimiser steps, and the mean loss a word over the whole training.
    """
    set_seed(args.seed + rank())
    adopt_model(args, model)
    check_labels(train_dataset, model)
    sampler = _sampler(args, train_dataset)
    total_steps = _total_steps(args, sampler.steps)
    optimizer = build_optimizer(args, model)
    schedule = build_schedule(args, optimizer, total_steps)
    gradient_step = GradientStep(args, model, optimizer)
    parallel_model = _parallel(args, gradient_step.model)
    state = TrainState(model, optimizer, total_steps, sampler.steps, is_main=is_main())
    dev_dataset = _dev_dataset(args, tokenizer)
    checkpoints = _checkpoints(args, model, tokenizer, sampler.steps)
    callbacks = Callbacks(_callbacks(args, checkpoints))
    meter = _Meter(args.device)
    logger.info("Training %d steps of %s", total_steps, _batch_plan(args))

    callbacks.on_train_begin(state)
    for windows, batches in _steps(args, train_dataset, sampler, total_steps):
        words = int(train_dataset.word_counts[windows].sum())
        parallel_model.train()
        for round_, batch in enumerate(batches, start=1):
            inputs = {name: tensor.to(args.device, non_blocking=True) for name, tensor in batch.items()}
            with _gradient_sync(parallel_model, last=round_ == args.gradient_accumulation_steps):

                def backward(inputs: dict[str, Tensor] = inputs, words: int = words) -> Tensor:
                    with autocast(args):
                        # DDP averages gradients over ranks; the loss is already divided by the words of all of them
                        loss = parallel_model(**inputs, num_items_in_batch=words).loss.sum()
                    gradient_step.backward(loss * world_size())
                    return loss.detach()

                meter.add_loss(backward())
                callbacks.after_backward(state, backward)
        gradient_step.step()
        schedule.step()
        meter.add_step(words)
        state.step += 1
        callbacks.on_step(state)
        if _is_due(args.log_loss_steps, state):
            state.loss, state.words_per_second = meter.since_last()
            callbacks.on_log(state)
        if dev_dataset is not None and _is_due(args.logging_steps, state):
            with meter.paused():
                scores = score_dataset(args, model, dev_dataset, "Evaluating")
                state.metrics = scores.headline()
                logger.info("Epoch %.2f: dev F1 %.4f, loss %.4f", state.epoch, scores.entities.micro.f1, scores.loss)
                callbacks.on_evaluate(state)
    callbacks.on_train_end(state)
    if checkpoints.has_best:
        _restore_best(args, model)
    speed = f"{meter.total_words / meter.total_seconds:,.0f} words/s in {meter.total_seconds:.0f} s without evaluation"
    logger.info("Trained %d steps: %s", total_steps, speed)
    return total_steps, meter.total_loss / meter.total_steps


def _sampler(args: NerArguments, dataset: FeatureDataset) -> BucketBatchSampler:
    return BucketBatchSampler(
        dataset.lengths,
        batch_size=args.per_gpu_train_batch_size * max(1, args.n_gpu),
        rounds=args.gradient_accumulation_steps,
        rank=rank(),
        world_size=world_size(),
        seed=args.seed,
        max_tokens=args.max_batch_tokens * max(1, args.n_gpu),
    )


def _total_steps(args: NerArguments, steps_per_epoch: int) -> int:
    if args.max_steps > 0:
        return args.max_steps
    return math.ceil(round(args.num_train_epochs * steps_per_epoch, 6))  # 1.1 * 110 is a little more than 121


def _steps(
    args: NerArguments, dataset: FeatureDataset, sampler: BucketBatchSampler, total_steps: int
) -> Iterator[tuple[NDArray[np.int64], list[dict[str, Tensor]]]]:
    """For each optimiser step the windows of all ranks, and this rank's batches, over as many epochs as it takes."""
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=dataset.collate,
        num_workers=args.num_workers,
        pin_memory=args.device.type == "cuda",
    )
    left = total_steps
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        batches = iter(loader)
        for step in range(min(sampler.steps, left)):
            yield sampler.step_windows(step), list(itertools.islice(batches, args.gradient_accumulation_steps))
        left -= min(sampler.steps, left)
        if not left:
            return


def _parallel(args: NerArguments, model: nn.Module) -> nn.Module:
    """The model as it is, or spread over this process's GPUs, or joined with the other processes'."""
    if world_size() > 1:
        devices = [args.device] if args.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)
    return DataParallel(model) if args.n_gpu > 1 else model


def _gradient_sync(model: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Ranks exchange gradients once a step, in its last accumulation round."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def _dev_dataset(args: NerArguments, tokenizer: PreTrainedTokenizerBase) -> FeatureDataset | None:
    if not args.evaluate_during_training:
        return None
    if not corpus_of(args).has("dev"):
        logger.warning("There is no dev split: the model is not scored while training, and the last one is kept")
        return None
    return load_and_cache_examples(args, args.task_name, tokenizer, "dev")


def _checkpoints(
    args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase, steps_per_epoch: int
) -> Checkpoints:
    every = steps_per_epoch if args.save_steps < 0 else args.save_steps
    return Checkpoints(Path(args.output_dir), lambda folder: save_model_folder(folder, args, model, tokenizer), every)


def _callbacks(args: NerArguments, checkpoints: Checkpoints) -> list[Callback]:
    callbacks: list[Callback] = [Progress(), TensorBoard(Path(args.output_dir, "tensorboard")), checkpoints]
    if args.do_adv:
        callbacks.append(FastGradientMethod(args.adv_name, args.adv_epsilon))
    return callbacks


def _batch_plan(args: NerArguments) -> str:
    """What a step consists of, for the log."""
    batch = args.max_batch_tokens or args.per_gpu_train_batch_size
    unit = "tokens" if args.max_batch_tokens else "windows"
    shares = {"GPUs": max(1, args.n_gpu), "processes": world_size(), "rounds": args.gradient_accumulation_steps}
    factors = [f"{batch} {unit} a batch", *(f"{factor} {name}" for name, factor in shares.items() if factor > 1)]
    return " x ".join(factors)


def _is_due(every: int, state: TrainState) -> bool:
    """Whether something is to be done after this step: every so many, each epoch for -1, and in the end."""
    interval = every if every > 0 else state.steps_per_epoch
    return state.step % interval == 0 or state.step == state.total_steps


def _restore_best(args: NerArguments, model: Tagger) -> None:
    """Rank 0 reads the best weights that it wrote, and sends them to the others."""
    if is_main():
        load_model(model, Path(args.output_dir, BEST_FOLDER, "model.safetensors"))
    send_from_main(model.state_dict().values())


class _Meter:
    """Adds up losses on the device and words and time on the host, and looks at the losses only when asked."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._steps = self._words = 0
        self._clock = time.perf_counter()
        self.total_loss, self.total_steps = 0.0, 0
        self.total_words, self.total_seconds = 0, 0.0

    def add_loss(self, loss: Tensor) -> None:
        self._loss += loss

    def add_step(self, words: int) -> None:
        self._steps += 1
        self._words += words

    def since_last(self) -> tuple[float, float]:
        """Mean loss a step, and words a second of all processes, since the last call."""
        loss = float(sum_over_ranks(self._loss))
        seconds = time.perf_counter() - self._clock
        mean, speed = loss / self._steps, self._words / seconds
        self.total_loss += loss
        self.total_steps += self._steps
        self.total_words += self._words
        self.total_seconds += seconds
        self._loss.zero_()
        self._steps = self._words = 0
        self._clock = time.perf_counter()
        return mean, speed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what is done meanwhile out of the speed."""
        start = time.perf_counter()
        yield
        self._clock += time.perf_counter() - start
