"""The hooks of the training loop, and the state that they see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass
class TrainState:
    """The state of the training. Loss, norm, speeds and shares are means since the last log.

    Args:
        model: without the wrappers of DataParallel or DDP.
        optimizer: its groups have a ``name``.
        total_steps: optimiser steps of the whole run.
        steps_per_epoch: optimiser steps of the first epoch; with a token budget other epochs differ by a few.
        is_main: whether this is the process that writes.
        tag_names: the tags in the order of their ids.
        step: optimiser steps done.
        loss: mean loss per word.
        gradient_norm: before clipping.
        words_per_second, tokens_per_second: of all processes.
        padding_share: share of padding in the computed tokens.
        utilisation: share of the devices' peak FLOP/s that training the encoder used.
        memory_gib: peak memory of this process, on its GPU or, on a CPU, in total.
        skipped_steps: steps so far that changed no weight because loss or gradients were not finite.
        metrics: scores of the last evaluation.
        type_metrics: its precision, recall and F1 by entity type.
        examples: some texts of dev with the entities it found, wrong ones first.
        best_metrics: scores of the best model.
        evaluated_step: the step of the last evaluation.
        should_stop: set by a callback, on all ranks, to end training after this step. Not stored in checkpoints, so
            that training can continue with other arguments.
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
        """The current learning rate of each part of the model."""
        return {group["name"].partition("/")[0]: group["lr"] for group in self.optimizer.param_groups}

    def is_due(self, every: int) -> bool:
        """Whether an action is due: every ``every`` steps (-1: every epoch; 0: never), and at the end."""
        at_end = self.step == self.total_steps or self.should_stop
        return bool(every and self.step) and (at_end or self.step % (every if every > 0 else self.steps_per_epoch) == 0)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return {name: getattr(self, name) for name in _REMEMBERED}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        for name in _REMEMBERED:
            setattr(self, name, saved[name])


_REMEMBERED = ("step", "skipped_steps", "evaluated_step", "best_metrics")


@dataclass(frozen=True)
class ScoredText:
    """A text of dev, with its gold and predicted entities as text."""

    text: str
    gold: list[str]
    predicted: list[str]


class Forward(Protocol):
    """Runs a batch through the model; what it returns has a ``loss`` and ``logits``."""

    def __call__(self, batch: dict[str, Any]) -> Any:
        """``batch`` holds the inputs of the model, with ``labels`` and ``num_items_in_batch``."""


class Backward(Protocol):
    """Runs a batch forward and backward with the current weights, and adds to the gradients."""

    def __call__(self, last: bool = True) -> Tensor:
        """Returns the loss. ``last``: this batch has no further pass, so ranks may exchange gradients."""


class Callback:
    """Hooks that do nothing; subclass and override those that you need.

    What must survive an interruption goes into ``state_dict``: numbers, strings, tensors, and lists and dicts of them.
    """

    _REMEMBERED: ClassVar[tuple[str, ...]] = ()  # private attributes that `state_dict` stores

    def on_train_begin(self, state: TrainState) -> None:
        """Before the first step; after ``load_state_dict`` if training resumes."""

    def around_forward(self, state: TrainState, forward: Forward, batch: dict[str, Any]) -> Any:
        """Instead of each forward pass in training; may run several, and returns what ``forward`` does."""
        return forward(batch)

    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        """Instead of the forward and backward pass of each batch; may run several, and returns the loss."""
        return backward()

    def on_step(self, state: TrainState) -> None:
        """After each optimiser step."""

    def on_log(self, state: TrainState) -> None:
        """After loss and speed were updated."""

    def before_evaluate(self, state: TrainState) -> None:
        """Before dev is scored."""

    def on_evaluate(self, state: TrainState) -> None:
        """After dev was scored with the current weights; see ``state.metrics``."""

    def after_evaluate(self, state: TrainState) -> None:
        """After ``on_evaluate`` of all callbacks, before training continues."""

    def on_train_end(self, state: TrainState) -> None:
        """After the last step."""

    def close(self) -> None:
        """Release files and progress bars; also after an error or an interruption."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores of this callback."""
        return {name.removeprefix("_"): getattr(self, name) for name in self._REMEMBERED}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        for name in self._REMEMBERED:
            setattr(self, name, saved[name.removeprefix("_")])


class Callbacks:
    """Several callbacks as one, called in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)

    def call(self, hook: str, state: TrainState) -> None:
        """Call a hook that takes only the state, such as ``on_step``."""
        for callback in self._callbacks:
            getattr(callback, hook)(state)

    def around_forward(self, state: TrainState, forward: Forward, batch: dict[str, Any]) -> Any:
        for callback in self._callbacks:
            forward = partial(callback.around_forward, state, forward)
        return forward(batch)

    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        for callback in self._callbacks:
            backward = partial(_backward_around, callback, state, backward)
        return backward()

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
    """A score for which larger is better: the negative of a loss.

    Raises:
        ValueError: there is no such score, for example none of tags from a head that finds entities without tags.
    """
    if metric not in metrics:
        raise ValueError(f"--metric_for_best_model {metric}: this head has only the scores {', '.join(metrics)}")
    return -metrics[metric] if metric in _SMALLER_IS_BETTER else metrics[metric]
