"""The parts of a training, and what is done with them."""

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import PreTrainedTokenizerBase, set_seed

from callbacks import Callbacks, Checkpoints, TrainState
from models.rdrop import RDrop
from models.tagger import Tagger
from processors.feature_dataset import FeatureDataset
from tools.arguments import NerArguments
from tools.callback_setup import build_callbacks
from tools.checkpoint import Stateful, load_training_state, write_checkpoint, write_model
from tools.data import corpus_of, load_and_cache_examples
from tools.distributed import is_main, rank, run_on_main, world_size
from tools.durable import remove_folder
from tools.evaluate import check_dataset, score_dataset
from tools.feed import Step, StepFeed
from tools.loading import adopt_model
from tools.meter import Meter
from tools.metrics import Score
from tools.nonfinite import NonFiniteSteps
from tools.optimizer import build_optimizer, build_schedule
from tools.parameter_groups import freeze
from tools.precision import GradientStep, autocast
from tools.preparation import checkpoint_layers
from tools.resume import check_options, checkpoint_to_resume
from tools.utilisation import encoder_cost, peak_flops, peak_memory

logger = logging.getLogger(__name__)


class Training:
    """A model on its way from the first step to the last.

    Args:
        args: all of the run.
        train_dataset: the windows to learn from.
        model: on its device, with the labels of the data, after this.
        tokenizer: is written beside the model.
    """

    def __init__(
        self, args: NerArguments, train_dataset: FeatureDataset, model: Tagger, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        set_seed(args.seed + rank())
        adopt_model(args, model)
        check_dataset(train_dataset, model)
        self._args, self._dataset, self._model = args, train_dataset, model
        self._feed = StepFeed(args, train_dataset)
        total_steps = _total_steps(args, self._feed.steps_per_epoch)
        freeze(args, model)
        checkpoint_layers(args, model)
        optimizer = build_optimizer(args, model)
        if args.shard_optimizer:
            from tools.sharding import (
                sharded,
            )  # takes seconds, for torch then compiles all of its functional optimisers

            optimizer = sharded(optimizer)
        self._schedule = build_schedule(args, optimizer, total_steps)
        self._gradient_step = GradientStep(args, model, optimizer)
        learner = RDrop(model, args.rdrop_alpha) if args.rdrop_alpha else self._gradient_step.model
        self._parallel_model = _parallel(args, learner)
        self._dev_dataset = _dev_dataset(args, tokenizer)
        self._encoder_cost = encoder_cost(model)
        self._passes = 0
        self.meter = Meter(args.device, peak_flops(args))
        self._nonfinite = NonFiniteSteps(train_dataset, tokenizer, Path(args.output_dir), args.max_nonfinite_steps)
        self.state = TrainState(model, optimizer, total_steps, self._feed.steps_per_epoch, is_main(), model.tag_names)
        self.checkpoints = Checkpoints(
            Path(args.output_dir),
            save_model=lambda folder: write_model(folder, args, model, tokenizer),
            save_checkpoint=lambda folder: write_checkpoint(folder, args, model, tokenizer, self._parts),
            every=self._feed.steps_per_epoch if args.save_steps < 0 else args.save_steps,
            keep=args.save_total_limit,
            remove=remove_folder,
            metric=args.metric_for_best_model,
        )
        self.callbacks = Callbacks(build_callbacks(args, self.checkpoints))
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
        logger.info("Training %d steps of %s", total_steps, _batch_plan(args))

    def resume(self) -> None:
        """Goes to where a checkpoint was written, if the arguments name one."""
        checkpoint = checkpoint_to_resume(self._args)
        if checkpoint is None:
            return
        check_options(self._args, checkpoint)
        load_training_state(checkpoint, self._model, self._parts)
        logger.info("Going on after step %d of %d, from %s", self.state.step, self.state.total_steps, checkpoint)
        best = self.checkpoints.best_folder
        if self.checkpoints.has_best and not run_on_main(best.is_dir):
            self.checkpoints.forget_best(self.state)
            logger.warning("%s has no %s: the best model is one of those scored from now on", best.parent, best.name)

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
            inputs = {name: tensor.to(self._args.device, non_blocking=True) for name, tensor in batch.items()}
            last_round = round_ == self._args.gradient_accumulation_steps
            backward = partial(self._backward, inputs, words, last_round)
            self.meter.add_loss(self.callbacks.around_backward(self.state, backward))
        norm = self._gradient_step.step()
        passes, self._passes = self._passes / len(step.batches), 0
        self._schedule.step()
        self.state.step += 1
        self._nonfinite.add(self.state.step, step.windows, norm)
        lengths = self._dataset.lengths[step.windows]
        self.meter.add_step(step, words, int(lengths.sum()), passes * self._encoder_cost.of_training(lengths))
        self.callbacks.on_step(self.state)

    def _backward(self, inputs: dict[str, Tensor], words: int, last_round: bool, last: bool = True) -> Tensor:
        self._passes += 2 if self._args.rdrop_alpha else 1
        with _gradient_sync(self._parallel_model, last and last_round):
            with autocast(self._args):
                loss = self._parallel_model(**inputs, num_items_in_batch=words).loss.sum()
            # DDP averages gradients over ranks; the loss is already divided by the words of all of them
            self._gradient_step.backward(loss * world_size())
        return loss.detach()

    def log(self) -> None:
        """Looks at what the device has counted."""
        self.meter.report(self.state)
        self.state.gradient_norm, self.state.skipped_steps = self._nonfinite.look(), self._nonfinite.total
        self.state.memory_gib = peak_memory(self._args.device)
        self.callbacks.on_log(self.state)

    def evaluate(self) -> None:
        """Scores dev, if there is one and this step was not scored yet."""
        state = self.state
        if self._dev_dataset is None or state.evaluated_step == state.step:
            return
        with self.meter.paused():
            self.callbacks.before_evaluate(state)
            scores = score_dataset(self._args, self._model, self._dev_dataset, "Evaluating")
            state.metrics, state.evaluated_step = scores.headline(), state.step
            state.type_metrics = {name: _rates(score) for name, score in scores.entities.types.items()}
            state.examples = scores.examples
            logger.info("Epoch %.2f: dev F1 %.4f, loss %.4f", state.epoch, scores.entities.micro.f1, scores.loss)
            self.callbacks.on_evaluate(state)
            self.callbacks.after_evaluate(state)

    def results(self) -> dict[str, Any]:
        """What came of it, over all steps, those before an interruption too."""
        total = self.meter.total
        return {
            "steps": self.state.step,
            "skipped_steps": self.state.skipped_steps,
            "loss": total.loss / total.steps,
            "best_score": self.checkpoints.best_score if self.checkpoints.has_best else None,
            "seconds": total.seconds,
            "words_per_second": self.meter.words_per_second,
            "padding_share": 1 - total.tokens / total.computed_tokens,
        }


def _rates(score: Score) -> dict[str, float]:
    return {"precision": score.precision, "recall": score.recall, "f1": score.f1}


def _total_steps(args: NerArguments, steps_per_epoch: int) -> int:
    if args.max_steps > 0:
        return args.max_steps
    return max(1, math.ceil(round(args.num_train_epochs * steps_per_epoch, 6)))  # 1.1 * 110 is a little more than 121


def _parallel(args: NerArguments, model: nn.Module) -> nn.Module:
    """The model as it is, or spread over this process's GPUs, or joined with the other processes'."""
    if world_size() > 1:
        devices = [args.device] if args.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)
    return DataParallel(model) if args.n_gpu > 1 else model


def _gradient_sync(model: nn.Module, now: bool) -> AbstractContextManager[Any]:
    """Ranks exchange gradients once a step, in its last backward pass."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not now else nullcontext()


def _dev_dataset(args: NerArguments, tokenizer: PreTrainedTokenizerBase) -> FeatureDataset | None:
    if not args.evaluate_during_training:
        return None
    if not corpus_of(args).has("dev"):
        logger.warning("There is no dev split: the model is not scored while training, and the last one is kept")
        return None
    return load_and_cache_examples(args, args.task_name, tokenizer, "dev")


def _batch_plan(args: NerArguments) -> str:
    """What a step consists of, for the log."""
    batch = args.max_batch_tokens or args.per_gpu_train_batch_size
    unit = "tokens" if args.max_batch_tokens else "windows"
    shares = {"GPUs": max(1, args.n_gpu), "processes": world_size(), "rounds": args.gradient_accumulation_steps}
    factors = [f"{batch} {unit} a batch", *(f"{factor} {name}" for name, factor in shares.items() if factor > 1)]
    return " x ".join(factors)
