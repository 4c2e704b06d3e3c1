"""Training with a kept gradient of the embedding table is the same, bit for bit, whatever happens to the gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from callbacks import FastGradientMethod, TrainState
from tools.embedding_gradient import EmbeddingGradient
from tools.precision import GradientStep, Precision

ROWS, WIDTH = 40, 8
CPU = Precision(torch.device("cpu"))


class Model(nn.Module):
    """An embedding and a linear layer, which may use the weights of the embedding."""

    def __init__(self, is_tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.word_embeddings = nn.Embedding(ROWS, WIDTH, padding_idx=0)
        self.linear = nn.Linear(WIDTH, ROWS)
        if is_tied:
            self.linear.weight = self.word_embeddings.weight

    def loss(self, ids: Tensor) -> Tensor:
        loss: Tensor = nn.functional.cross_entropy(self.linear(self.word_embeddings(ids)).flatten(0, 1), ids.flatten())
        return loss


def weights_after(
    is_kept: bool, change: Callable[[Model], None] = lambda model: None, rounds: int = 1, is_tied: bool = False
) -> list[Tensor]:
    """All weights after five steps, of few words each; ``change`` is called after each backward pass."""
    model = Model(is_tied)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    step = GradientStep(CPU, model, optimizer, EmbeddingGradient(model.word_embeddings) if is_kept else None)
    words = torch.Generator().manual_seed(1)
    for number in range(5):
        for _ in range(rounds):
            step.backward(model.loss(torch.randint(0, 6, (4, 9), generator=words) + number))
            change(model)
        step.clip(0.5 if number % 2 else 100.0)
        step.step()
    return [weight.detach().clone() for weight in model.parameters()]


def add_noise(model: Model) -> None:
    gradient = model.word_embeddings.weight.grad
    assert gradient is not None
    gradient += 0.1


def replace_gradient(model: Model) -> None:
    gradient = model.word_embeddings.weight.grad
    assert gradient is not None
    model.word_embeddings.weight.grad = gradient * 2


def drop_gradient(model: Model) -> None:
    model.zero_grad()
    model.loss(torch.full((1, 3), 7)).backward()


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("change", [lambda model: None, add_noise, replace_gradient, drop_gradient])
def test_the_weights_are_the_same(change: Callable[[Model], None], rounds: int) -> None:
    expected, found = weights_after(False, change, rounds), weights_after(True, change, rounds)
    assert all(map(torch.equal, expected, found))


def test_another_layer_may_use_the_table() -> None:
    expected, found = weights_after(False, is_tied=True, rounds=2), weights_after(True, is_tied=True, rounds=2)
    for left, right in zip(expected, found, strict=True):  # sparse and dense gradients are added in another order
        torch.testing.assert_close(left, right)


def test_adversarial_training_is_the_same() -> None:
    def weights(is_kept: bool) -> list[Tensor]:
        model = Model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        step = GradientStep(CPU, model, optimizer, EmbeddingGradient(model.word_embeddings) if is_kept else None)
        method, state = FastGradientMethod(), TrainState(model, optimizer, 3, 3)
        method.on_train_begin(state)
        for number in range(3):
            ids = torch.arange(12).view(3, 4) + number

            def backward(last: bool = True, ids: Tensor = ids) -> Tensor:
                loss = model.loss(ids)
                step.backward(loss)
                return loss

            method.around_backward(state, backward)
            method.around_backward(state, backward)
            step.clip(0.1)
            step.step()
        return [weight.detach().clone() for weight in model.parameters()]

    assert all(map(torch.equal, weights(False), weights(True)))
