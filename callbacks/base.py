"""The hooks of the training loop, and the one object that they see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass
class TrainState:
    """Where the training stands.

    Args:
        model: without the wrappers of DataParallel or DDP.
        optimizer: its groups carry a ``name``.
        total_steps: optimiser steps of the whole run.
        steps_per_epoch: optimiser steps of the first epoch; with a token budget others differ by a few.
        is_main: whether this process is the one that writes.
        tag_names: the tags in the order of their ids.
        step: optimiser steps done.
        loss: mean loss a word over the steps since it was last logged.
        gradient_norm: mean norm before clipping, over the same steps.
        words_per_second, tokens_per_second: of all processes, over the same steps.
        padding_share: of the tokens that were computed, over the same steps.
        utilisation: share of what the devices can compute that the encoder's training made use of, over the same steps.
        memory_gib: of this process, at most: on its GPU, or on a CPU in all.
        skipped_steps: steps so far whose loss or gradients were not finite; they changed no weight.
        metrics: scores of the last evaluation.
        type_metrics: precision, recall and F1 of each entity type, at the same time.
        examples: some texts of dev with what was found in them, wrong ones first, at the same time.
        best_metrics: those of the evaluation whose model was kept.
        evaluated_step: the step of the last evaluation.
        should_stop: set by a callback to end the training after this step, on all ranks alike; checkpoints do not keep
            it, so that a training can go on under other arguments.
    """

    model: nn.Module
    optimizer: Optimizer
    total_steps: int
    steps_per_epoch: int
    is_main: bool = True
    tag_names: Sequence[str] = ()
    step: int = 0
    loss: float = float("nan")
    gradient_norm: float = float("nan")
    words_per_second: float = 0.0
    tokens_per_second: float = 0.0
    padding_share: float = 0.0
    utilisation: float = 0.0
    memory_gib: float = 0.0
    skipped_steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    type_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    examples: Sequence["ScoredText"] = ()
    best_metrics: dict[str, float] = field(default_factory=dict)
    evaluated_step: int = 0
    should_stop: bool = False

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch

    @property
    def learning_rates(self) -> dict[str, float]:
        """The present rate of each part of the model."""
        return {group["name"].partition("/")[0]: group["lr"] for group in self.optimizer.param_groups}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {name: getattr(self, name) for name in _REMEMBERED}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on from there."""
        for name in _REMEMBERED:
            setattr(self, name, saved[name])


_REMEMBERED = ("step", "skipped_steps", "evaluated_step", "best_metrics")


@dataclass(frozen=True)
class ScoredText:
    """A text and its entities, in words: those that it has and those that were found."""

    text: str
    gold: list[str]
    predicted: list[str]


class Forward(Protocol):
    """Runs a batch through the model; what it returns has a ``loss`` and ``logits``."""

    def __call__(self, batch: dict[str, Any]) -> Any:
        """``batch`` holds the inputs of the model, with ``labels`` and ``num_items_in_batch``."""


class Backward(Protocol):
    """Runs a batch forward and backward under the present weights, and adds its gradients to those that are there."""

    def __call__(self, last: bool = True) -> Tensor:
        """The loss; ``last`` says that no other pass of this batch follows, so ranks may exchange gradients."""


class Callback:
    """Does nothing at every point of the loop; subclass and override what you need.

    What a callback must remember over an interruption it gives in ``state_dict``: numbers, strings, tensors, and
    lists and dicts of them.
    """

    def on_train_begin(self, state: TrainState) -> None:
        """Before the first step; after ``load_state_dict`` where a training goes on."""

    def around_forward(self, state: TrainState, forward: Forward, batch: dict[str, Any]) -> Any:
        """In place of each forward pass in training; may run several, and returns what ``forward`` does."""
        return forward(batch)

    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        """In place of each batch's forward and backward pass; may run several, and returns the batch's loss."""
        return backward()

    def on_step(self, state: TrainState) -> None:
        """An optimiser step is done."""

    def on_log(self, state: TrainState) -> None:
        """Loss and speed are fresh."""

    def before_evaluate(self, state: TrainState) -> None:
        """The dev split is about to be scored."""

    def on_evaluate(self, state: TrainState) -> None:
        """The dev split was scored, with the weights that the model has now; see ``state.metrics``."""

    def after_evaluate(self, state: TrainState) -> None:
        """All callbacks know the scores; the training goes on."""

    def on_train_end(self, state: TrainState) -> None:
        """After the last step."""

    def close(self) -> None:
        """The training is over, has failed or was interrupted: let go of files and bars."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave."""


class Callbacks(Callback):
    """Several callbacks as one, called in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)

    def on_train_begin(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_train_begin(state)

    def around_forward(self, state: TrainState, forward: Forward, batch: dict[str, Any]) -> Any:
        for callback in self._callbacks:
            forward = partial(callback.around_forward, state, forward)
        return forward(batch)

    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        for callback in self._callbacks:
            backward = partial(_backward_around, callback, state, backward)
        return backward()

    def on_step(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_step(state)

    def on_log(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_log(state)

    def before_evaluate(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.before_evaluate(state)

    def on_evaluate(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_evaluate(state)

    def after_evaluate(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.after_evaluate(state)

    def on_train_end(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_train_end(state)

    def close(self) -> None:
        for callback in self._callbacks:
            callback.close()

    def state_dict(self) -> dict[str, Any]:
        return {type(callback).__name__: saved for callback in self._callbacks if (saved := callback.state_dict())}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        for callback in self._callbacks:
            if type(callback).__name__ in saved:
                callback.load_state_dict(saved[type(callback).__name__])


def _backward_around(callback: Callback, state: TrainState, backward: Backward, last: bool = True) -> Tensor:
    outer_last = last

    def inner(last: bool = True) -> Tensor:
        return backward(outer_last and last)

    return callback.around_backward(state, inner)


_SMALLER_IS_BETTER = ("loss",)


def comparable(metrics: Mapping[str, float], metric: str) -> float:
    """One of the scores, larger where the model is better."""
    return -metrics[metric] if metric in _SMALLER_IS_BETTER else metrics[metric]
