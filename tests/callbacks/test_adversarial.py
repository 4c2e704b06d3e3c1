"""Adversarial training on a model small enough to follow."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from callbacks import FastGradientMethod, ProjectedGradientDescent
from tests.callbacks.states import TinyModel, state_of

IDS = torch.tensor([0, 2, 2, 4])
OTHER_IDS = torch.tensor([1, 3])


class Recorder:
    """The backward pass of a batch; records the weights that it sees."""

    def __init__(self, model: TinyModel, ids: Tensor = IDS, look: Callable[[], object] | None = None) -> None:
        self._model, self._ids, self._look = model, ids, look
        self.embeddings: list[Tensor] = []
        self.losses: list[float] = []
        self.lasts: list[bool] = []
        self.looks: list[object] = []

    def __call__(self, last: bool = True) -> Tensor:
        self.embeddings.append(self._model.word_embeddings.weight.detach().clone())
        self.lasts.append(last)
        if self._look is not None:
            self.looks.append(self._look())
        loss = self._model(self._ids)
        loss.backward()
        self.losses.append(loss.item())
        return loss.detach()


def gradients(model: TinyModel) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def gradients_of(ids: Tensor, embeddings: Tensor | None = None) -> dict[str, Tensor]:
    """The gradients of one batch alone, at the given embeddings."""
    model = TinyModel()
    if embeddings is not None:
        model.word_embeddings.weight.data.copy_(embeddings)
    model(ids).backward()
    return gradients(model)


def started(model: TinyModel, name: str = "word_embeddings", epsilon: float = 1.0) -> FastGradientMethod:
    fgm = FastGradientMethod(name, epsilon)
    fgm.on_train_begin(state_of(model))
    return fgm


def test_embeddings_move_along_their_gradient_by_epsilon_and_come_back() -> None:
    model = TinyModel()
    clean = gradients_of(IDS)["word_embeddings.weight"]
    backward = Recorder(model)
    started(model, epsilon=0.5).around_backward(state_of(model), backward)
    original, moved = backward.embeddings
    torch.testing.assert_close(moved - original, 0.5 * clean / clean.norm())
    assert torch.equal(model.word_embeddings.weight, original)


def test_gradients_are_those_of_both_passes() -> None:
    model = TinyModel()
    backward = Recorder(model)
    started(model, epsilon=0.5).around_backward(state_of(model), backward)
    adversarial = gradients_of(IDS, backward.embeddings[1])
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, gradients_of(IDS)[name] + adversarial[name])
        assert not torch.allclose(gradients_of(IDS)[name], adversarial[name]), name


def test_a_later_accumulation_round_moves_along_the_gradient_of_its_own_batch() -> None:
    model = TinyModel()
    fgm, first, second = started(model, epsilon=0.5), Recorder(model), Recorder(model, OTHER_IDS)
    fgm.around_backward(state_of(model), first)
    after_first = gradients(model)
    fgm.around_backward(state_of(model), second)
    own = gradients_of(OTHER_IDS)["word_embeddings.weight"]
    torch.testing.assert_close(second.embeddings[1] - second.embeddings[0], 0.5 * own / own.norm())
    clean, adversarial = gradients_of(OTHER_IDS), gradients_of(OTHER_IDS, second.embeddings[1])
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, after_first[name] + clean[name] + adversarial[name])


def test_the_loss_is_that_of_the_clean_batch_and_higher_at_the_disturbed_embeddings() -> None:
    model = TinyModel()
    backward = Recorder(model)
    loss = started(model, epsilon=0.1).around_backward(state_of(model), backward)
    assert loss.item() == backward.losses[0] < backward.losses[1]


def test_only_the_last_pass_lets_ranks_exchange_gradients() -> None:
    model = TinyModel()
    backward = Recorder(model)
    started(model).around_backward(state_of(model), backward)
    assert backward.lasts == [False, True]


def test_a_gradient_of_zero_disturbs_nothing() -> None:
    model = TinyModel()
    model.classifier.weight.data.zero_()  # so none reaches the embeddings
    backward = Recorder(model)
    started(model).around_backward(state_of(model), backward)
    assert torch.equal(*backward.embeddings)


def test_only_the_named_parameters_are_disturbed() -> None:
    model = TinyModel()
    originals = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def changed() -> list[str]:
        return [name for name, weight in model.named_parameters() if not torch.equal(weight, originals[name])]

    backward = Recorder(model, look=changed)
    started(model, "classifier").around_backward(state_of(model), backward)
    assert backward.looks == [[], ["classifier.weight", "classifier.bias"]]


def test_a_name_that_no_parameter_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'wte' \(--adv_name\); there are word_embeddings\.weight"):
        started(TinyModel(), "wte")


def started_pgd(model: TinyModel, epsilon: float, alpha: float, steps: int) -> ProjectedGradientDescent:
    pgd = ProjectedGradientDescent("word_embeddings", epsilon, alpha, steps)
    pgd.on_train_begin(state_of(model))
    return pgd


def test_several_steps_follow_the_gradient_where_they_are() -> None:
    model = TinyModel()
    backward = Recorder(model)
    started_pgd(model, epsilon=10.0, alpha=0.2, steps=3).around_backward(state_of(model), backward)
    places = backward.embeddings
    assert len(places) == 4
    for before, after in itertools.pairwise(places):
        gradient = gradients_of(IDS, before)["word_embeddings.weight"]
        torch.testing.assert_close(after - before, 0.2 * gradient / gradient.norm())
    assert torch.equal(model.word_embeddings.weight, places[0])
    assert backward.losses == sorted(backward.losses)
    assert backward.lasts == [False, False, False, True]


def test_steps_never_leave_the_ball() -> None:
    model = TinyModel()
    backward = Recorder(model)
    started_pgd(model, epsilon=0.3, alpha=0.2, steps=5).around_backward(state_of(model), backward)
    distances = [(place - backward.embeddings[0]).norm().item() for place in backward.embeddings]
    assert distances[:2] == pytest.approx([0.0, 0.2])
    assert distances[2:] == pytest.approx([0.3] * 4, rel=1e-3)


def test_only_the_first_and_the_last_gradient_count() -> None:
    model = TinyModel()
    pgd = started_pgd(model, epsilon=0.5, alpha=0.2, steps=3)
    first, second = Recorder(model), Recorder(model, OTHER_IDS)
    pgd.around_backward(state_of(model), first)
    pgd.around_backward(state_of(model), second)  # another accumulation round
    for name, gradient in gradients(model).items():
        expected = [gradients_of(ids)[name] for ids in (IDS, OTHER_IDS)]
        expected += [gradients_of(IDS, first.embeddings[3])[name], gradients_of(OTHER_IDS, second.embeddings[3])[name]]
        torch.testing.assert_close(gradient, sum(expected[1:], expected[0]))


def test_one_step_of_full_length_is_the_fast_gradient_method() -> None:
    one, other = TinyModel(), TinyModel()
    started(one, epsilon=0.5).around_backward(state_of(one), Recorder(one))
    started_pgd(other, epsilon=0.5, alpha=0.5, steps=1).around_backward(state_of(other), Recorder(other))
    for name, gradient in gradients(one).items():
        assert torch.equal(gradients(other)[name], gradient), name


@pytest.mark.parametrize("scale", [2.0**16, 2.0**-10])
def test_the_scale_of_a_float16_loss_changes_no_place(scale: float) -> None:
    class Scaled(Recorder):
        def __call__(self, last: bool = True) -> Tensor:
            self.embeddings.append(self._model.word_embeddings.weight.detach().clone())
            loss = self._model(self._ids)
            (scale * loss).backward()
            return loss.detach()

    places = []
    for kind in (Recorder, Scaled):
        model = TinyModel()
        backward = kind(model)
        started_pgd(model, epsilon=0.3, alpha=0.2, steps=3).around_backward(state_of(model), backward)
        places.append(torch.stack(backward.embeddings))
    torch.testing.assert_close(*places)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_do_not_reach_the_embeddings(bad: float) -> None:
    model = TinyModel()
    original = model.word_embeddings.weight.detach().clone()
    places: list[Tensor] = []

    def backward(last: bool = True) -> Tensor:
        places.append(model.word_embeddings.weight.detach().clone())
        loss = model(IDS) * bad
        loss.backward()
        return loss.detach()

    started_pgd(model, epsilon=0.3, alpha=0.2, steps=3).around_backward(state_of(model), backward)
    assert all(torch.equal(place, original) for place in places)
    assert torch.equal(model.word_embeddings.weight, original)
    assert not bool(gradients(model)["classifier.weight"].isfinite().all())  # so the step will be left out


def test_frozen_embeddings_cannot_be_disturbed() -> None:
    model = TinyModel()
    model.word_embeddings.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that learns contains 'word_embeddings'"):
        started(model)
