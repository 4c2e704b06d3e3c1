"""Two passes in one against two passes made by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers.modeling_outputs import TokenClassifierOutput

from callbacks import RDrop, TrainState
from models import HEADS, BertCrfForNer, BertSoftmaxForNer
from models.tagger import Tagger
from tests.models.families import FAMILIES, batch_of, collate, random_rows, tiny_tagger


def passed_twice(tagger: Tagger, alpha: float, batch: dict[str, Any], words: int) -> TokenClassifierOutput:
    state = TrainState(tagger, torch.optim.SGD(tagger.parameters()), 1, 1)
    output = RDrop(alpha).around_forward(state, lambda inputs: tagger(**inputs), {**batch, "num_items_in_batch": words})
    assert isinstance(output, TokenClassifierOutput)
    return output


heads_that_can = pytest.mark.parametrize(
    "model_class", [head for head in HEADS.values() if head.log_probabilities is not Tagger.log_probabilities]
)
both_heads = pytest.mark.parametrize("model_class", [BertSoftmaxForNer, BertCrfForNer])


class Shifted(torch.nn.Module):
    """In place of dropout: the first half of the rows stays, the second is changed in a known way."""

    def forward(self, states: Tensor) -> Tensor:
        first, second = states.chunk(2)
        return torch.cat([first, changed(second)])


def changed(states: Tensor) -> Tensor:
    return states * torch.linspace(0.5, 1.5, states.size(-1))


class Changed(torch.nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return changed(states)


def divergence(left: Tensor, right: Tensor, labels: Tensor) -> Tensor:
    """Of both directions, word by word as the textbook has it."""
    total = torch.zeros(())
    for row, word in (labels != -100).nonzero().tolist():
        p, q = left[row, word].softmax(-1), right[row, word].softmax(-1)
        total = total + functional.kl_div(q.log(), p, reduction="sum") / 2
        total = total + functional.kl_div(p.log(), q, reduction="sum") / 2
    return total


@both_heads
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_mean_of_two_losses_and_their_divergence(family: str, model_class: type[Tagger]) -> None:
    tagger = tiny_tagger(model_class, family)
    batch: dict[str, Any] = collate(random_rows([12, 7, 9]), tagger.config)
    batch["labels"][0, 1] = -100
    first = tagger(**batch, num_items_in_batch=20)
    tagger.dropout = Changed()  # type: ignore[assignment]
    second = tagger(**batch, num_items_in_batch=20)
    tagger.dropout = Shifted()  # type: ignore[assignment]
    both = passed_twice(tagger, 3.0, batch, 20)
    disagreement = divergence(first.logits, second.logits, batch["labels"]) / 20
    assert float(disagreement.detach()) > 1e-5
    torch.testing.assert_close(both.loss, (first.loss + second.loss) / 2 + 3.0 * disagreement)
    torch.testing.assert_close(both.logits, first.logits)


@heads_that_can
def test_without_dropout_the_passes_agree(model_class: type[Tagger]) -> None:
    tagger = tiny_tagger(model_class)
    batch: dict[str, Any] = batch_of(tagger, random_rows([12, 7]))
    alone, both = tagger(**batch, num_items_in_batch=9), passed_twice(tagger, 5.0, batch, 9)
    torch.testing.assert_close(both.loss, alone.loss)


@heads_that_can
def test_the_two_passes_see_different_dropout(model_class: type[Tagger]) -> None:
    tagger = tiny_tagger(model_class, hidden_dropout_prob=0.5).train()
    batch: dict[str, Any] = batch_of(tagger, random_rows([12, 7]))
    losses = []
    for alpha in (0.0, 1.0):
        torch.manual_seed(0)
        loss = passed_twice(tagger, alpha, batch, 9).loss
        assert loss is not None
        losses.append(float(loss.detach()))
    assert losses[1] > losses[0] + 1e-4


@heads_that_can
def test_gradients_reach_every_weight_that_learns(model_class: type[Tagger]) -> None:
    tagger = tiny_tagger(model_class).train()
    loss = passed_twice(tagger, 1.0, batch_of(tagger, random_rows([12])), 6).loss
    assert loss is not None
    loss.backward()
    assert all(weight.grad is not None for weight in tagger.parameters())
