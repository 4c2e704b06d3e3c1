"""The fast gradient method on a model small enough to follow."""

import pytest
import torch
from torch import Tensor

from callbacks import FastGradientMethod
from tests.callbacks.states import TinyModel, state_of

IDS = torch.tensor([0, 2, 2, 4])


def gradients(model: TinyModel) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def backward(model: TinyModel) -> dict[str, Tensor]:
    """Adds the gradients of one batch, and returns those of this batch alone."""
    before = gradients(model)
    model(IDS).backward()
    return {name: gradient - before.get(name, 0) for name, gradient in gradients(model).items()}


def test_embeddings_move_along_their_gradient_by_epsilon_and_come_back() -> None:
    model = TinyModel()
    original = model.word_embeddings.weight.detach().clone()
    clean = backward(model)["word_embeddings.weight"]
    moved: list[Tensor] = []
    fgm = FastGradientMethod(epsilon=0.5)
    fgm.after_backward(state_of(model), lambda: moved.append(model.word_embeddings.weight.detach() - original))
    torch.testing.assert_close(moved[0], 0.5 * clean / clean.norm())
    assert torch.equal(model.word_embeddings.weight, original)


def test_gradients_are_those_of_both_batches() -> None:
    model = TinyModel()
    clean = backward(model)
    adversarial: list[dict[str, Tensor]] = []
    FastGradientMethod(epsilon=0.5).after_backward(state_of(model), lambda: adversarial.append(backward(model)))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, clean[name] + adversarial[0][name])
        assert not torch.allclose(clean[name], adversarial[0][name]), name


def test_the_loss_is_higher_at_the_disturbed_embeddings() -> None:
    model = TinyModel()
    loss = model(IDS)
    loss.backward()
    losses: list[float] = []
    fgm = FastGradientMethod(epsilon=0.1)
    fgm.after_backward(state_of(model), lambda: losses.append(model(IDS).item()))
    assert losses[0] > loss.item()


def test_a_gradient_of_zero_disturbs_nothing() -> None:
    model = TinyModel()
    model.word_embeddings.weight.grad = torch.zeros(5, 3)
    original = model.word_embeddings.weight.detach().clone()
    seen: list[Tensor] = []
    FastGradientMethod().after_backward(
        state_of(model), lambda: seen.append(model.word_embeddings.weight.detach().clone())
    )
    assert torch.equal(seen[0], original)


def test_only_the_named_parameters_are_disturbed() -> None:
    model = TinyModel()
    originals = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    backward(model)
    changed: list[str] = []

    def look() -> None:
        changed.extend(name for name, weight in model.named_parameters() if not torch.equal(weight, originals[name]))

    FastGradientMethod("classifier").after_backward(state_of(model), look)
    assert changed == ["classifier.weight", "classifier.bias"]


def test_a_name_that_no_parameter_has_is_refused_with_those_that_there_are() -> None:
    FastGradientMethod("word_embeddings").on_train_begin(state_of())
    with pytest.raises(ValueError, match=r"'wte' \(--adv_name\); there are word_embeddings\.weight"):
        FastGradientMethod("wte").on_train_begin(state_of())
