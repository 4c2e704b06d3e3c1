"""What a training costs, and what a device can do."""

import numpy as np
import pytest
import torch

from models import BertCrfForNer
from tests.models.families import FAMILIES, tiny_tagger
from tools.meter import _forward_flops, encoder_cost, peak_flops, peak_memory


def test_the_cost_of_bert_is_that_of_its_formula() -> None:
    """A multiplication and an addition for each weight of a layer, and the attention (Kaplan et al. 2020, table 1)."""
    model = tiny_tagger(BertCrfForNer)
    matrices = [weight for name, weight in model.named_parameters() if ".layer." in name and weight.ndim == 2]
    cost = encoder_cost(model)
    assert cost.token == pytest.approx(2 * sum(weight.numel() for weight in matrices))
    assert cost.pair == pytest.approx(2 * 2 * model.config.num_hidden_layers * model.config.hidden_size)
    tokens = np.array([5, 7], np.int32)
    assert cost.of_training(tokens) == pytest.approx(3 * (12 * cost.token + 74 * cost.pair))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cost_of_other_windows_follows(family: str) -> None:
    model = tiny_tagger(BertCrfForNer, family)
    cost = encoder_cost(model)
    counted = [_forward_flops(model, tokens) - cost.token * tokens - cost.pair * tokens**2 for tokens in (12, 20, 28)]
    assert counted == pytest.approx([counted[0]] * 3, abs=1)  # of DeBERTa's relative positions, once a batch
    assert (abs(counted[0]) < 1) == (family != "deberta-v2")


def test_counting_changes_neither_the_mode_nor_the_random_numbers() -> None:
    model = tiny_tagger(BertCrfForNer).train()
    before = torch.get_rng_state()
    encoder_cost(model)
    peak_flops(torch.device("cpu"), torch.float32, 0)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_can_do_more_than_nothing(dtype: torch.dtype) -> None:
    assert 1e7 < peak_flops(torch.device("cpu"), dtype, 0) < 1e15


def test_the_memory_is_that_of_the_process() -> None:
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(2**28 // 4 * 2)  # half a GiB, more than there was
    assert held.sum() > 0
    assert 0.01 < before <= peak_memory(torch.device("cpu")) < 1000
