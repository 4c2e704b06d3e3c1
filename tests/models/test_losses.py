"""The losses of single tags against their formulas."""

import math

import pytest
import torch
from torch import Tensor

from models import BertSoftmaxForNer
from models.heads.softmax import LOSSES
from tests.models.families import tiny_tagger

C = 5


def hand_written(logits: list[float], label: int, loss_type: str) -> float:
    """The loss of one tag, from the papers' formulas in plain floats."""
    peak = max(logits)
    log_partition = peak + math.log(sum(math.exp(logit - peak) for logit in logits))
    log_probabilities = [logit - log_partition for logit in logits]
    entropy = -log_probabilities[label]
    if loss_type == "focal":
        return (1 - math.exp(-entropy)) ** 2 * entropy
    if loss_type == "lsr":  # 0.9 of the mass on the label, 0.1 spread over all tags
        return 0.9 * entropy - 0.1 * sum(log_probabilities) / len(logits)
    return entropy


def random_tags(N: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(N, C, generator=generator), torch.randint(0, C, (N,), generator=generator)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_each_loss_is_its_formula(loss_type: str) -> None:
    logits, labels = random_tags()
    expected = [
        hand_written(row, int(label), loss_type) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert LOSSES[loss_type](logits, labels).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_a_label_of_minus_100_costs_nothing_and_teaches_nothing(loss_type: str) -> None:
    logits, labels = random_tags(6)
    logits.requires_grad_()
    ignored = torch.tensor([True, False, True, False, False, True])
    losses = LOSSES[loss_type](logits, labels.masked_fill(ignored, -100))
    losses.sum().backward()
    assert logits.grad is not None
    assert (losses[ignored] == 0).all()
    assert (logits.grad[ignored] == 0).all()
    assert (losses[~ignored] > 0).all()


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [0.0, 1e4])
def test_loss_and_gradient_are_finite_for_any_logits(loss_type: str, dtype: torch.dtype, size: float) -> None:
    logits = (size * torch.eye(C)).to(dtype).requires_grad_()
    for labels in (torch.arange(C), torch.arange(C).roll(1)):  # all right, all wrong
        losses = LOSSES[loss_type](logits, labels)
        (gradient,) = torch.autograd.grad(losses.sum(), logits)
        assert losses.isfinite().all()
        assert gradient.isfinite().all()


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits, labels = random_tags()
    model, half = tiny_tagger(BertSoftmaxForNer), logits.bfloat16()
    losses = model.losses(half[None], labels[None], torch.ones(1, len(labels), dtype=torch.bool))
    torch.testing.assert_close(losses, LOSSES["ce"](half.float(), labels).sum()[None])


def test_focal_loss_gives_easy_tags_less_weight() -> None:
    logits, labels = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0])  # easy, hard
    share = LOSSES["focal"](logits, labels) / LOSSES["ce"](logits, labels)
    assert share[0] < 0.01
    assert share[1] > 0.9
