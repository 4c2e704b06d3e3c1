"""The optimiser with a rate for each part of the model, and the schedule of the rates."""

import json
import re
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler
from transformers.optimization import Adafactor

from tools.settings import OptimisationSettings


def build_optimizer(optimisation: OptimisationSettings, model: nn.Module, crf_rate: float | None = None) -> Optimizer:
    """The optimiser that ``optimisation.optim`` names, over the groups of `parameter_groups`.

    Args:
        crf_rate: learning rate of the model's CRF, where it has one.

    Raises:
        ValueError: apex is asked for and not installed.
    """
    kind, options = optimizer_class(optimisation)
    return kind(parameter_groups(optimisation, model, crf_rate), **options)


def optimizer_class(optimisation: OptimisationSettings) -> tuple[type[Optimizer], dict[str, Any]]:
    """What to make an optimiser from, and the options that all groups share."""
    rate = optimisation.learning_rate
    if (
        optimisation.optim == "adafactor"
    ):  # without its own rates, by step and by size of the weights: the schedule's count
        return Adafactor, {"lr": rate, "scale_parameter": False, "relative_step": False}
    if optimisation.optim == "apex_fused_adam":
        return _apex_fused_adam(), {"lr": rate, "eps": optimisation.adam_epsilon, "adam_w_mode": True}
    return AdamW, {"lr": rate, "eps": optimisation.adam_epsilon, "fused": optimisation.optim == "adamw_torch_fused"}


def _apex_fused_adam() -> type[Optimizer]:
    try:
        from apex.optimizers import FusedAdam
    except ImportError as error:
        raise ValueError(
            "--optim apex_fused_adam: NVIDIA's apex is not installed, or without its CUDA extensions (the apex on PyPI "
            f"is another package); use --optim adamw_torch_fused, which computes the same ({error})"
        ) from error
    return FusedAdam


def build_schedule(optimisation: OptimisationSettings, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """The course of the rates over a run: up in the warm-up, then as ``optimisation.lr_scheduler_type`` has it.

    Raises:
        ValueError: ``optimisation.lr_scheduler_kwargs`` are not this schedule's, or lack what it needs.
    """
    warmup = optimisation.warmup_steps or int(optimisation.warmup_proportion * total_steps)
    try:
        options = json.loads(optimisation.lr_scheduler_kwargs or "{}")
        return get_scheduler(optimisation.lr_scheduler_type, optimizer, warmup, total_steps, options)
    except (TypeError, ValueError) as error:
        kind, kwargs = optimisation.lr_scheduler_type, optimisation.lr_scheduler_kwargs
        raise ValueError(f"--lr_scheduler_type {kind} --lr_scheduler_kwargs '{kwargs}': {error}") from error


_LAYER_NUMBER = re.compile(r"\.(\d+)\.")


def part_of(parameter_name: str) -> str:
    """Which part of a tagger a parameter belongs to: ``encoder``, ``head`` or ``crf``."""
    return {"classifier": "head", "crf": "crf"}.get(parameter_name.partition(".")[0], "encoder")


def layer_of(parameter_name: str) -> int | None:
    """The layer of the encoder: its number from 0, -1 for the embeddings, None above all layers and outside."""
    if part_of(parameter_name) != "encoder":
        return None
    number = _LAYER_NUMBER.search(parameter_name)
    if number:
        return int(number[1])
    return -1 if "embed" in parameter_name else None


def freeze(optimisation: OptimisationSettings, model: nn.Module) -> None:
    """Takes the embeddings and the lowest layers out of the training, as asked.

    Raises:
        ValueError: the encoder has not so many layers.
    """
    if optimisation.freeze_layers > (layers := count_layers(model)):
        raise ValueError(
            f"--freeze_layers {optimisation.freeze_layers}, but the encoder has {layers} layers of its own weights"
        )
    frozen = {*range(optimisation.freeze_layers), *([-1] if optimisation.freeze_embeddings else [])}
    for name, parameter in model.named_parameters():
        if layer_of(name) in frozen:
            parameter.requires_grad_(False)


def parameter_groups(
    optimisation: OptimisationSettings, model: nn.Module, crf_rate: float | None = None
) -> list[dict[str, Any]]:
    """Groups for an optimiser; biases, norms and other vectors are not decayed (Loshchilov and Hutter 2019).

    They are named ``encoder``, ``head`` and ``crf``, each with ``/decayed`` or ``/not decayed``. With ``layer_decay``
    the encoder is ``encoder.embeddings``, ``encoder.0`` and so on: the last layer learns at the full rate, every other
    one at ``layer_decay`` times that of the next (Howard and Ruder 2018, sec. 3.2). Heads start from nothing, so they
    learn 10 to 100 times faster than the encoder unless told otherwise.

    Args:
        optimisation: of which ``learning_rate``, ``head_learning_rate``, ``layer_decay`` and ``weight_decay`` are read.
        model: its frozen weights are left out.
        crf_rate: of its CRF, where it has one.
    """
    rates, layers = _rates_of_parts(optimisation, model, crf_rate), count_layers(model)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        learner, layer = part_of(name), layer_of(name)
        rate, decays = rates[learner], _decays(name, parameter)
        if optimisation.layer_decay != 1 and layer is not None:
            learner = f"encoder.{layer if layer >= 0 else 'embeddings'}"
            rate *= optimisation.layer_decay ** (layers - 1 - layer)
        group = f"{learner}/{'decayed' if decays else 'not decayed'}"
        decay = optimisation.weight_decay if decays else 0.0
        empty: dict[str, Any] = {"name": group, "params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault(group, empty)["params"].append(parameter)
    return list(groups.values())


def count_layers(model: nn.Module) -> int:
    """Layers of the encoder that have weights of their own; of an ALBERT, whose layers share theirs, 1."""
    numbers = [layer for name, _ in model.named_parameters() if (layer := layer_of(name)) is not None]
    return max(numbers, default=-1) + 1


def _rates_of_parts(optimisation: OptimisationSettings, model: nn.Module, crf_rate: float | None) -> dict[str, float]:
    has_crf = any(part_of(name) == "crf" for name, _ in model.named_parameters())
    if not has_crf:
        crf_rate = optimisation.learning_rate
    assert crf_rate is not None, "a model with a CRF needs its learning rate"
    head_rate = optimisation.head_learning_rate if optimisation.head_learning_rate >= 0 else crf_rate
    return {"encoder": optimisation.learning_rate, "head": head_rate, "crf": crf_rate}


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith("bias")  # XLNet has biases of two dimensions
