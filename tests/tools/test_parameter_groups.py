"""Layers, their rates, and what is frozen."""

from typing import Any

import pytest
import torch

from models import BertCrfForNer, BertSoftmaxForNer
from models.tagger import Tagger
from tests.models.families import FAMILIES, tiny_tagger
from tests.tools.runs import crf, softmax
from tools.optimizer import count_layers, freeze, layer_of, parameter_groups
from tools.run import Run
from tools.settings import OptimisationSettings

all_families = pytest.mark.parametrize("family", FAMILIES)


def groups_of(args: Run, model: Tagger) -> list[dict[str, Any]]:
    rate = getattr(args.settings.head, "crf_learning_rate", None)
    return parameter_groups(args.settings.optimisation, model, rate)


def rates(args: Run, model: Tagger) -> dict[str, float]:
    """The rate of each weight by its name."""
    by_id = {id(weight): group["lr"] for group in groups_of(args, model) for weight in group["params"]}
    return {name: by_id[id(weight)] for name, weight in model.named_parameters() if id(weight) in by_id}


@all_families
def test_all_families_number_their_layers(family: str) -> None:
    model = tiny_tagger(BertCrfForNer, family)
    layers = {name: layer_of(name) for name, _ in model.named_parameters()}
    assert count_layers(model) == (1 if family == "albert" else 2)
    assert {layer for layer in layers.values() if layer is not None} == {-1, *range(count_layers(model))}
    assert layers["classifier.weight"] is layers["crf.transitions"] is None
    assert all(layer == -1 for name, layer in layers.items() if "word_embedding" in name)


@all_families
def test_each_layer_learns_slower_than_the_next_and_embeddings_slowest(family: str) -> None:
    args = crf(learning_rate=0.1, crf_learning_rate=0.7, layer_decay=0.5)
    model = tiny_tagger(BertCrfForNer, family)
    layers = count_layers(model)
    for name, rate in rates(args, model).items():
        layer = layer_of(name)
        if name.startswith(("classifier", "crf")):
            assert rate == 0.7, name
        else:
            assert rate == pytest.approx(0.1 * 0.5 ** (0 if layer is None else layers - 1 - layer)), name


def test_groups_of_layers_are_named() -> None:
    names = {group["name"] for group in groups_of(crf(layer_decay=0.9), tiny_tagger(BertCrfForNer))}
    learners = ("encoder.embeddings", "encoder.0", "encoder.1", "head", "crf")
    assert names == {f"{learner}/{decay}" for learner in learners for decay in ("decayed", "not decayed")}


@all_families
def test_the_lowest_layers_and_the_embeddings_can_be_frozen(family: str) -> None:
    model = tiny_tagger(BertSoftmaxForNer, family)
    args = softmax(freeze_layers=1, freeze_embeddings=True)
    idle = {name for name, weight in model.named_parameters() if not weight.requires_grad}  # XLNet has one
    freeze(args.settings.optimisation, model)
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == idle | {name for name, _ in model.named_parameters() if layer_of(name) in (-1, 0)}
    assert set(rates(args, model)) == {name for name, _ in model.named_parameters()} - frozen


def test_layers_alone_are_frozen_without_the_embeddings() -> None:
    model = tiny_tagger(BertSoftmaxForNer)
    freeze(softmax(freeze_layers=2).settings.optimisation, model)
    learning = {layer_of(name) for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {-1, None}


def test_more_layers_than_there_are_cannot_be_frozen() -> None:
    with pytest.raises(ValueError, match="--freeze_layers 3, but the encoder has 2 layers"):
        freeze(softmax(freeze_layers=3).settings.optimisation, tiny_tagger(BertSoftmaxForNer))


def test_arguments_without_a_crf_serve_a_model_without_one() -> None:
    groups = parameter_groups(OptimisationSettings(learning_rate=0.25), tiny_tagger(BertSoftmaxForNer))
    assert {group["lr"] for group in groups} == {0.25}
    assert sum(len(group["params"]) for group in groups) == len(list(tiny_tagger(BertSoftmaxForNer).parameters()))
    assert all(isinstance(weight, torch.nn.Parameter) for group in groups for weight in group["params"])
