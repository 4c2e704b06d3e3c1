"""The optimiser with a rate for each part of the model, and the schedule of the rates."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, get_scheduler
from transformers.optimization import Adafactor

from models.tagger import Tagger
from tools.settings import OptimisationSettings


def build_optimizer(optimisation: OptimisationSettings, model: PreTrainedModel, head: Any = None) -> Optimizer:
    """The optimiser that ``optimisation.optim`` names, over the groups of `parameter_groups`.

    Args:
        head: options of the model's head, see `parameter_groups`.

    Raises:
        ValueError: apex is asked for and not installed.
    """
    kind, options = optimizer_class(optimisation)
    return kind(parameter_groups(optimisation, model, head), **options)


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


def part_of(parameter_name: str, encoder: str) -> str:
    """The part of a model that a parameter belongs to: ``encoder``, ``head`` for ``classifier``, or its first name.

    Args:
        encoder: prefix of the encoder's parameters.
    """
    first = parameter_name.partition(".")[0]
    return {encoder: "encoder", "classifier": "head"}.get(first, first)


def layer_of(parameter_name: str, encoder: str) -> int | None:
    """The layer of the encoder: its number from 0, -1 for the embeddings, None above all layers and outside."""
    if part_of(parameter_name, encoder) != "encoder":
        return None
    number = _LAYER_NUMBER.search(parameter_name)
    if number:
        return int(number[1])
    return -1 if "embed" in parameter_name else None


def freeze(optimisation: OptimisationSettings, model: PreTrainedModel) -> None:
    """Takes the embeddings and the lowest layers out of the training, as asked.

    Raises:
        ValueError: the encoder has fewer layers.
    """
    if optimisation.freeze_layers > (layers := count_layers(model)):
        raise ValueError(
            f"--freeze_layers {optimisation.freeze_layers}, but the encoder has {layers} layers of its own weights"
        )
    frozen = {*range(optimisation.freeze_layers), *([-1] if optimisation.freeze_embeddings else [])}
    for name, parameter in model.named_parameters():
        if layer_of(name, model.base_model_prefix) in frozen:
            parameter.requires_grad_(False)


def parameter_groups(
    optimisation: OptimisationSettings, model: PreTrainedModel, head: Any = None
) -> list[dict[str, Any]]:
    """Groups for an optimiser; biases, norms and other vectors are not decayed (Loshchilov and Hutter 2019).

    They are named ``encoder``, ``head`` for the classifier, and as the head's other parts are (``crf``), each with
    ``/decayed`` or ``/not decayed``. With ``layer_decay`` the encoder is ``encoder.embeddings``, ``encoder.0`` and so
    on: the last layer learns at the full rate, every other one at ``layer_decay`` times that of the next (Howard and
    Ruder 2018, sec. 3.2).

    Args:
        optimisation: of which ``learning_rate``, ``head_learning_rate``, ``layer_decay`` and ``weight_decay`` are read.
        model: its frozen weights are left out.
        head: options of its head, which may give its parts rates of their own; by default those of the head's class.
    """
    rates, layers, encoder = _rates_of_parts(optimisation, model, head), count_layers(model), model.base_model_prefix
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        learner, layer = part_of(name, encoder), layer_of(name, encoder)
        rate, decays = rates[learner], _decays(name, parameter)
        if optimisation.layer_decay != 1 and layer is not None:
            learner = f"encoder.{layer if layer >= 0 else 'embeddings'}"
            rate *= optimisation.layer_decay ** (layers - 1 - layer)
        group = f"{learner}/{'decayed' if decays else 'not decayed'}"
        decay = optimisation.weight_decay if decays else 0.0
        empty: dict[str, Any] = {"name": group, "params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault(group, empty)["params"].append(parameter)
    return list(groups.values())


def count_layers(model: PreTrainedModel) -> int:
    """Layers of the encoder that have weights of their own; of an ALBERT, whose layers share theirs, 1."""
    layers = (layer_of(name, model.base_model_prefix) for name, _ in model.named_parameters())
    return max((layer for layer in layers if layer is not None), default=-1) + 1


def _rates_of_parts(optimisation: OptimisationSettings, model: PreTrainedModel, head: Any) -> Mapping[str, float]:
    """The head's own rates; ``--head_learning_rate`` is that of the classifier and of parts for which it has none."""
    own = model.learning_rates(head or model.Options()) if isinstance(model, Tagger) else {}
    asked, encoder = optimisation.head_learning_rate, optimisation.learning_rate
    classifier = own.pop("classifier", encoder)
    rates = {"encoder": encoder, "head": asked if asked >= 0 else classifier, **own}
    return defaultdict(lambda: asked if asked >= 0 else encoder, rates)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith("bias")  # XLNet has biases of two dimensions
