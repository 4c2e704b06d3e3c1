"""Weight averages, compared with averages computed by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks import Callback, Callbacks, ExponentialAverage, StochasticWeightAverage, TrainState
from tests.callbacks.states import TinyModel, state_of


def course(steps: int) -> list[float]:
    """The value of every weight after each step."""
    return [float(step * step % 7) for step in range(1, steps + 1)]


def train(callback: Callback, state: TrainState, values: list[float]) -> None:
    for value in values:
        set_weights(state, value)
        state.step += 1
        callback.on_step(state)


def set_weights(state: TrainState, value: float) -> None:
    for weight in state.model.parameters():
        weight.data.fill_(value)


def weights(state: TrainState) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in state.model.parameters()])


def assert_weights(state: TrainState, value: float) -> None:
    torch.testing.assert_close(weights(state), torch.full_like(weights(state), value))


def exponential(values: list[float], decay: float) -> float:
    mean = values[0]
    for count, value in enumerate(values[1:], start=1):
        share = min(decay, (1 + count) / (10 + count))
        mean = share * mean + (1 - share) * value
    return mean


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99])
def test_the_exponential_mean(decay: float) -> None:
    average, state, values = ExponentialAverage(decay), state_of(), course(20)
    average.on_train_begin(state)
    train(average, state, values)
    average.before_evaluate(state)
    assert_weights(state, exponential(values, decay))


@pytest.mark.parametrize(("start", "first"), [(0.0, 0), (0.5, 20), (0.99, 39)])
def test_the_mean_of_the_last_part(start: float, first: int) -> None:
    average, state, values = StochasticWeightAverage(start), state_of(total_steps=40), course(40)
    average.on_train_begin(state)
    train(average, state, values)
    average.on_train_end(state)
    assert_weights(state, sum(values[first:]) / len(values[first:]))


def test_until_the_last_part_begins_the_weights_are_scored_as_they_are() -> None:
    average, state = StochasticWeightAverage(0.5), state_of(total_steps=40)
    average.on_train_begin(state)
    train(average, state, course(20))
    average.before_evaluate(state)
    assert_weights(state, course(20)[-1])


def test_the_mean_is_there_only_while_dev_is_scored() -> None:
    seen: list[Tensor] = []

    class Look(Callback):
        def on_evaluate(self, state: TrainState) -> None:
            seen.append(weights(state))

    average, state, values = ExponentialAverage(0.9), state_of(), course(10)
    callbacks = Callbacks([average, Look()])
    callbacks.call("on_train_begin", state)
    train(average, state, values)
    for _ in range(2):
        for hook in ("before_evaluate", "on_evaluate", "after_evaluate"):
            callbacks.call(hook, state)
        assert_weights(state, values[-1])
    callbacks.call("on_train_end", state)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(weights(state), seen[0])


@pytest.mark.parametrize("average", [ExponentialAverage(0.9), StochasticWeightAverage(0.1)])
def test_the_mean_survives_an_interruption(average: Any) -> None:
    again, state, values = (
        type(average)(0.9 if isinstance(average, ExponentialAverage) else 0.1),
        state_of(),
        course(30),
    )
    average.on_train_begin(state)
    train(average, state, values[:13])
    again.load_state_dict(average.state_dict() | {"means": [mean.clone() for mean in average.state_dict()["means"]]})
    step = state.step
    train(average, state, values[13:])
    average.on_train_end(state)
    undisturbed, state.step = weights(state), step
    again.on_train_begin(state)
    train(again, state, values[13:])
    again.on_train_end(state)
    assert torch.equal(weights(state), undisturbed)


def test_frozen_weights_are_left_alone() -> None:
    model = TinyModel()
    model.word_embeddings.requires_grad_(False)
    average, state = ExponentialAverage(0.9), state_of(model)
    average.on_train_begin(state)
    train(average, state, course(5))
    model.word_embeddings.weight.data.fill_(-1.0)
    average.on_train_end(state)
    assert bool((model.word_embeddings.weight == -1).all())
    assert bool((model.classifier.weight != course(5)[-1]).all())


def test_a_mean_of_other_weights_is_refused() -> None:
    average, state = ExponentialAverage(0.9), state_of()
    train(average, state, course(2))
    state.model.word_embeddings.requires_grad_(False)
    with pytest.raises(ValueError, match="means of 3 weights from before, but 2 weights that learn"):
        average.on_train_begin(state)
