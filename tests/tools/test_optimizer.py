"""Parameter groups, rates, decay and schedule."""

import pytest
import torch
from torch import nn

from models import BertCrfForNer, BertSoftmaxForNer
from models.tagger import Tagger
from tests.models.families import FAMILIES, tiny_tagger
from tools.arguments import CrfArguments, NerArguments, SoftmaxArguments
from tools.optimizer import build_optimizer, build_schedule, part_of


def rates(args: NerArguments, model: nn.Module) -> dict[str, float]:
    return {group["name"]: group["lr"] for group in build_optimizer(args, model).param_groups}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model_class", [BertSoftmaxForNer, BertCrfForNer])
def test_every_trainable_weight_is_in_exactly_one_group(family: str, model_class: type[Tagger]) -> None:
    model = tiny_tagger(model_class, family)
    grouped = [
        id(weight) for group in build_optimizer(CrfArguments(), model).param_groups for weight in group["params"]
    ]
    assert sorted(grouped) == sorted(id(weight) for weight in model.parameters() if weight.requires_grad)


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_and_norms_do_not_decay_and_matrices_do(family: str) -> None:
    model = tiny_tagger(BertCrfForNer, family)
    groups = build_optimizer(CrfArguments(weight_decay=0.02), model).param_groups
    decay = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            spared = "bias" in name or "norm" in name.lower() or name.endswith("_transitions")
            assert decay[id(weight)] == (0.0 if spared else 0.02), name


def test_weights_belong_to_encoder_head_or_crf() -> None:
    model = tiny_tagger(BertCrfForNer)
    parts = {name: part_of(name) for name, _ in model.named_parameters()}
    assert {name for name, part in parts.items() if part == "crf"} == {
        "crf.start_transitions",
        "crf.end_transitions",
        "crf.transitions",
    }
    assert {name for name, part in parts.items() if part == "head"} == {"classifier.weight", "classifier.bias"}
    assert all(name.startswith("bert.") for name, part in parts.items() if part == "encoder")


def test_each_part_has_its_own_rate() -> None:
    args = CrfArguments(learning_rate=1e-5, head_learning_rate=1e-4, crf_learning_rate=1e-3)
    assert rates(args, tiny_tagger(BertCrfForNer)) == {
        "encoder/decayed": 1e-5,
        "encoder/not decayed": 1e-5,
        "head/decayed": 1e-4,
        "head/not decayed": 1e-4,
        "crf/decayed": 1e-3,
        "crf/not decayed": 1e-3,
    }


def test_the_head_learns_as_the_crf_where_there_is_one() -> None:
    args = CrfArguments(learning_rate=1e-5, crf_learning_rate=1e-3)
    assert rates(args, tiny_tagger(BertCrfForNer))["head/decayed"] == 1e-3


def test_the_head_learns_as_the_encoder_where_there_is_no_crf() -> None:
    model_rates = rates(SoftmaxArguments(learning_rate=1e-5), tiny_tagger(BertSoftmaxForNer))
    assert set(model_rates.values()) == {1e-5}
    assert not any(name.startswith("crf") for name in model_rates)


def test_epsilon_is_passed_on() -> None:
    optimizer = build_optimizer(CrfArguments(adam_epsilon=1e-3), tiny_tagger(BertCrfForNer))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["eps"] == 1e-3 for group in optimizer.param_groups)


def test_frozen_weights_are_left_out() -> None:
    model = tiny_tagger(BertCrfForNer)
    model.classifier.requires_grad_(False)
    assert not any(name.startswith("head") for name in rates(CrfArguments(), model))


@pytest.mark.parametrize("warmup_proportion", [0.0, 0.2, 1.0])
def test_the_rate_rises_and_falls_linearly(warmup_proportion: float) -> None:
    args = CrfArguments(learning_rate=1.0, crf_learning_rate=10.0, warmup_proportion=warmup_proportion)
    optimizer = build_optimizer(args, tiny_tagger(BertCrfForNer))
    schedule = build_schedule(args, optimizer, total_steps=10)
    warmup = round(10 * warmup_proportion)
    for step in range(10):
        factor = step / warmup if step < warmup else (10 - step) / (10 - warmup)
        assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {
            name: pytest.approx(factor * (1.0 if name.startswith("encoder") else 10.0))
            for name in rates(args, tiny_tagger(BertCrfForNer))
        }
        optimizer.step()
        schedule.step()
    if warmup < 10:
        assert all(group["lr"] == pytest.approx(0.0) for group in optimizer.param_groups)
