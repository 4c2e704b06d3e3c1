"""Parameter groups, optimisers and learning rates."""

import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from models import BertCrfForNer, BertSoftmaxForNer
from models.tagger import Tagger
from tests.models.families import FAMILIES, tiny_tagger
from tests.tools.runs import crf, fit, largest_difference, replace, softmax
from tools.optimizer import build_optimizer, build_schedule, count_layers, freeze, layer_of, parameter_groups, part_of
from tools.run import Run
from tools.training_settings import SCHEDULES, OptimisationSettings


def groups_of(args: Run, model: Tagger) -> list[dict[str, Any]]:
    return parameter_groups(args.settings.optimisation, model, args.settings.head)


def optimizer_of(args: Run, model: Tagger) -> Optimizer:
    return build_optimizer(args.settings.optimisation, model, args.settings.head)


all_families = pytest.mark.parametrize("family", FAMILIES)


def rate_of_each_weight(args: Run, model: Tagger) -> dict[str, float]:
    """The rate of each weight by its name."""
    by_id = {id(weight): group["lr"] for group in groups_of(args, model) for weight in group["params"]}
    return {name: by_id[id(weight)] for name, weight in model.named_parameters() if id(weight) in by_id}


def layers_of(model: Tagger) -> dict[str, int | None]:
    return {name: layer_of(name, model.base_model_prefix) for name, _ in model.named_parameters()}


@all_families
def test_all_families_number_their_layers(family: str) -> None:
    model = tiny_tagger(BertCrfForNer, family)
    layers = layers_of(model)
    assert count_layers(model) == (1 if family == "albert" else 2)
    assert {layer for layer in layers.values() if layer is not None} == {-1, *range(count_layers(model))}
    assert layers["classifier.weight"] is layers["crf.transitions"] is None
    assert all(layer == -1 for name, layer in layers.items() if "word_embedding" in name)


@all_families
def test_each_layer_learns_slower_than_the_next_and_embeddings_slowest(family: str) -> None:
    args = crf(learning_rate=0.1, crf_learning_rate=0.7, layer_decay=0.5)
    model = tiny_tagger(BertCrfForNer, family)
    layers = count_layers(model)
    for name, rate in rate_of_each_weight(args, model).items():
        layer = layers_of(model)[name]
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
    assert frozen == idle | {name for name, layer in layers_of(model).items() if layer in (-1, 0)}
    assert set(rate_of_each_weight(args, model)) == {name for name, _ in model.named_parameters()} - frozen


def test_layers_alone_are_frozen_without_the_embeddings() -> None:
    model = tiny_tagger(BertSoftmaxForNer)
    freeze(softmax(freeze_layers=2).settings.optimisation, model)
    layers = layers_of(model)
    learning = {layers[name] for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {-1, None}


def test_more_layers_than_there_are_cannot_be_frozen() -> None:
    with pytest.raises(ValueError, match="--freeze_layers 3, but the encoder has 2 layers"):
        freeze(softmax(freeze_layers=3).settings.optimisation, tiny_tagger(BertSoftmaxForNer))


def test_arguments_without_a_crf_serve_a_model_without_one() -> None:
    groups = parameter_groups(OptimisationSettings(learning_rate=0.25), tiny_tagger(BertSoftmaxForNer))
    assert {group["lr"] for group in groups} == {0.25}
    assert sum(len(group["params"]) for group in groups) == len(list(tiny_tagger(BertSoftmaxForNer).parameters()))
    assert all(isinstance(weight, torch.nn.Parameter) for group in groups for weight in group["params"])


def rates(args: Run, model: Tagger) -> dict[str, float]:
    return {group["name"]: group["lr"] for group in optimizer_of(args, model).param_groups}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model_class", [BertSoftmaxForNer, BertCrfForNer])
def test_every_trainable_weight_is_in_exactly_one_group(family: str, model_class: type[Tagger]) -> None:
    model = tiny_tagger(model_class, family)
    grouped = [id(weight) for group in optimizer_of(crf(), model).param_groups for weight in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in model.parameters() if weight.requires_grad)


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_and_norms_do_not_decay_and_matrices_do(family: str) -> None:
    model = tiny_tagger(BertCrfForNer, family)
    groups = optimizer_of(crf(weight_decay=0.02), model).param_groups
    decay = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            spared = "bias" in name or "norm" in name.lower() or name.endswith("_transitions")
            assert decay[id(weight)] == (0.0 if spared else 0.02), name


def test_weights_belong_to_encoder_head_or_crf() -> None:
    model = tiny_tagger(BertCrfForNer)
    parts = {name: part_of(name, model.base_model_prefix) for name, _ in model.named_parameters()}
    assert {name for name, part in parts.items() if part == "crf"} == {
        "crf.start_transitions",
        "crf.end_transitions",
        "crf.transitions",
    }
    assert {name for name, part in parts.items() if part == "head"} == {"classifier.weight", "classifier.bias"}
    assert all(name.startswith("bert.") for name, part in parts.items() if part == "encoder")


def test_each_part_has_its_own_rate() -> None:
    args = crf(learning_rate=1e-5, head_learning_rate=1e-4, crf_learning_rate=1e-3)
    assert rates(args, tiny_tagger(BertCrfForNer)) == {
        "encoder/decayed": 1e-5,
        "encoder/not decayed": 1e-5,
        "head/decayed": 1e-4,
        "head/not decayed": 1e-4,
        "crf/decayed": 1e-3,
        "crf/not decayed": 1e-3,
    }


def test_the_head_learns_as_the_crf_where_there_is_one() -> None:
    args = crf(learning_rate=1e-5, crf_learning_rate=1e-3)
    assert rates(args, tiny_tagger(BertCrfForNer))["head/decayed"] == 1e-3


def test_the_head_learns_as_the_encoder_where_there_is_no_crf() -> None:
    model_rates = rates(softmax(learning_rate=1e-5), tiny_tagger(BertSoftmaxForNer))
    assert set(model_rates.values()) == {1e-5}
    assert not any(name.startswith("crf") for name in model_rates)


def test_epsilon_is_passed_on() -> None:
    optimizer = optimizer_of(crf(adam_epsilon=1e-3), tiny_tagger(BertCrfForNer))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["eps"] == 1e-3 for group in optimizer.param_groups)


def test_frozen_weights_are_left_out() -> None:
    model = tiny_tagger(BertCrfForNer)
    model.classifier.requires_grad_(False)
    assert not any(name.startswith("head") for name in rates(crf(), model))


@pytest.mark.parametrize("warmup_proportion", [0.0, 0.2, 1.0])
def test_the_rate_rises_and_falls_linearly(warmup_proportion: float) -> None:
    args = crf(learning_rate=1.0, crf_learning_rate=10.0, warmup_proportion=warmup_proportion)
    optimizer = optimizer_of(args, tiny_tagger(BertCrfForNer))
    schedule = build_schedule(args.settings.optimisation, optimizer, total_steps=10)
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


def courses(**options: Any) -> list[float]:
    """The share of the peak rate at each of 12 steps."""
    args = crf(learning_rate=1.0, **options)
    optimizer = optimizer_of(args, tiny_tagger(BertCrfForNer))
    schedule = build_schedule(args.settings.optimisation, optimizer, total_steps=12)
    seen = []
    for _ in range(12):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


_OPTIONS = {"cosine_with_min_lr": '{"min_lr_rate": 0.1}', "warmup_stable_decay": '{"num_decay_steps": 4}'}


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "constant"])
def test_every_schedule_rises_over_the_warmup_and_then_never(name: str) -> None:
    seen = courses(lr_scheduler_type=name, warmup_steps=4, lr_scheduler_kwargs=_OPTIONS.get(name, ""))
    assert seen[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert seen[4:] == sorted(seen[4:], reverse=True)
    assert (seen[-1] == 1) == (name == "constant_with_warmup")


def test_a_constant_rate_has_no_warmup() -> None:
    assert set(courses(lr_scheduler_type="constant")) == {1.0}


def test_options_of_a_schedule_are_passed_on() -> None:
    options = {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": '{"num_cycles": 3}'}
    expected = [0.5 * (1 + math.cos(math.pi * (step % 4) / 4)) for step in range(12)]
    assert courses(**options, warmup_proportion=0.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosine", '{"num_circles": 3}', "num_circles"),
        ("cosine", "num_cycles=3", "Expecting value"),
        ("cosine_with_min_lr", "", "min_lr"),
        ("warmup_stable_decay", "", "num_decay_steps"),
    ],
)
def test_what_is_no_option_of_a_schedule_is_refused(name: str, options: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"--lr_scheduler_type {name} .*{message}"):
        courses(lr_scheduler_type=name, lr_scheduler_kwargs=options)


def test_all_optimizers_train(crf_args: Run) -> None:
    args = replace(crf_args, max_steps=8, evaluate_during_training=False)
    fused, plain, adafactor = (
        fit(replace(args, optim=optim)) for optim in ("adamw_torch_fused", "adamw_torch", "adafactor")
    )
    assert largest_difference(fused[2], plain[2]) < 1e-5
    assert largest_difference(fused[2], adafactor[2]) > 1e-3
    assert fused[1] == pytest.approx(adafactor[1], rel=0.3)


def test_a_resumed_adafactor_remembers_its_averages(crf_args: Run) -> None:
    args = replace(crf_args, max_steps=8, evaluate_during_training=False, optim="adafactor", save_steps=5)
    whole = fit(replace(args, output_dir=f"{args.folder.path} whole"))[2]
    resumed = fit(replace(args, resume_from_checkpoint=f"{args.folder.path} whole/checkpoint-8"))
    assert largest_difference(resumed[2], whole) == 0
    (Path(f"{args.folder.path} whole") / "checkpoint-8").rename(f"{args.folder.path} set aside")
    resumed = fit(replace(args, resume_from_checkpoint=f"{args.folder.path} whole/checkpoint-5"))
    assert largest_difference(resumed[2], whole) == 0


def test_without_apex_its_optimizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apex", None)
    with pytest.raises(ValueError, match=r"--optim apex_fused_adam: NVIDIA's apex is not installed"):
        optimizer_of(crf(optim="apex_fused_adam"), tiny_tagger(BertCrfForNer))


def test_the_optimizer_of_an_apex_gets_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    class FusedAdam(torch.optim.AdamW):
        def __init__(self, groups: Any, adam_w_mode: bool, **options: Any) -> None:
            assert adam_w_mode
            super().__init__(groups, **options)

    optimizers = types.ModuleType("apex.optimizers")
    optimizers.FusedAdam = FusedAdam  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "apex", types.ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)
    args = crf(optim="apex_fused_adam", adam_epsilon=1e-5)
    optimizer = optimizer_of(args, tiny_tagger(BertCrfForNer))
    assert isinstance(optimizer, FusedAdam)
    assert {group["eps"] for group in optimizer.param_groups} == {1e-5}
    assert {group["name"] for group in optimizer.param_groups} == set(rates(args, tiny_tagger(BertCrfForNer)))


def test_frozen_layers_stay_and_the_others_learn(crf_args: Run) -> None:
    args = replace(crf_args, evaluate_during_training=False, freeze_layers=1, freeze_embeddings=True)
    before = fit(replace(args, max_steps=1, warmup_steps=1))[2]  # at a rate of 0
    after = fit(replace(args, max_steps=4))[2]
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if "embeddings" in name or ".layer.0." in name}
