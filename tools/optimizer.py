"""How a model learns: what is frozen or recomputed, the optimiser with a rate per part, and the schedule."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, get_scheduler
from transformers.optimization import Adafactor

from models.tagger import Tagger
from tools.settings import MachineSettings
from tools.training_settings import OptimisationSettings

_LAYER_NUMBER = re.compile(r"\.(\d+)\.")


def build_optimizer(optimisation: OptimisationSettings, model: PreTrainedModel, head: Any = None) -> Optimizer:
    """Build the optimiser ``optimisation.optim`` over the groups of `parameter_groups`.

    Args:
        head: options of the model's head, see `parameter_groups`.

    Raises:
        ValueError: apex is selected but not installed.
    """
    groups, rate = parameter_groups(optimisation, model, head), optimisation.learning_rate
    if optimisation.optim == "adafactor":  # with the rates of the schedule instead of its own
        return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
    if optimisation.optim == "apex_fused_adam":
        return _apex_fused_adam()(groups, lr=rate, eps=optimisation.adam_epsilon, adam_w_mode=True)
    return AdamW(groups, lr=rate, eps=optimisation.adam_epsilon, fused=optimisation.optim == "adamw_torch_fused")


def _apex_fused_adam() -> Any:
    try:
        from apex.optimizers import FusedAdam
    except ImportError as error:
        raise ValueError(
            "--optim apex_fused_adam: NVIDIA's apex is not installed with its CUDA extensions (the apex on PyPI is a "
            f"different package); use --optim adamw_torch_fused, which is equivalent ({error})"
        ) from error
    return FusedAdam


def build_schedule(optimisation: OptimisationSettings, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Build the learning rate schedule: linear warm-up, then ``optimisation.lr_scheduler_type``.

    Raises:
        ValueError: ``optimisation.lr_scheduler_kwargs`` are not valid for this schedule.
    """
    warmup = optimisation.warmup_steps or int(optimisation.warmup_proportion * total_steps)
    try:
        options = json.loads(optimisation.lr_scheduler_kwargs or "{}")
        return get_scheduler(optimisation.lr_scheduler_type, optimizer, warmup, total_steps, options)
    except (TypeError, ValueError) as error:
        kind, kwargs = optimisation.lr_scheduler_type, optimisation.lr_scheduler_kwargs
        raise ValueError(f"--lr_scheduler_type {kind} --lr_scheduler_kwargs '{kwargs}': {error}") from error


def part_of(parameter_name: str, encoder: str) -> str:
    """Part that a parameter belongs to: ``encoder``, ``head`` (for ``classifier``), or the first part of its name.

    Args:
        encoder: prefix of the encoder's parameters.
    """
    first = parameter_name.partition(".")[0]
    return {encoder: "encoder", "classifier": "head"}.get(first, first)


def layer_of(parameter_name: str, encoder: str) -> int | None:
    """Encoder layer of a parameter, from 0; -1 for the embeddings, ``None`` if it belongs to no layer."""
    if part_of(parameter_name, encoder) != "encoder":
        return None
    number = _LAYER_NUMBER.search(parameter_name)
    if number:
        return int(number[1])
    return -1 if "embed" in parameter_name else None


def freeze(optimisation: OptimisationSettings, model: PreTrainedModel) -> None:
    """Freeze the embeddings and the lowest layers, as set by ``freeze_embeddings`` and ``freeze_layers``.

    Raises:
        ValueError: the encoder has fewer layers.
    """
    if optimisation.freeze_layers > (layers := count_layers(model)):
        raise ValueError(
            f"--freeze_layers {optimisation.freeze_layers}, but the encoder has {layers} layers with own weights"
        )
    frozen = {*range(optimisation.freeze_layers), *([-1] if optimisation.freeze_embeddings else [])}
    for name, parameter in model.named_parameters():
        if layer_of(name, model.base_model_prefix) in frozen:
            parameter.requires_grad_(False)


def checkpoint_layers(machine: MachineSettings, model: PreTrainedModel) -> None:
    """Checkpoint gradients if enabled: keep only the inputs of each layer for the backward pass (Chen et al. 2016).

    Raises:
        ValueError: the encoder's family does not support it.
    """
    if not machine.gradient_checkpointing:
        return
    encoder = model.base_model
    assert isinstance(encoder, PreTrainedModel)
    if not encoder.supports_gradient_checkpointing:
        raise ValueError(f"--gradient_checkpointing: transformers does not support it for {model.config.model_type}")
    former_name = "gradient_checkpointing_enable"  # until transformers 5.17
    enable = getattr(encoder, "activation_checkpointing_enable", None) or getattr(encoder, former_name)
    enable({"use_reentrant": False})


def parameter_groups(
    optimisation: OptimisationSettings, model: PreTrainedModel, head: Any = None
) -> list[dict[str, Any]]:
    """Build parameter groups. Biases, norms and other vectors are not decayed (Loshchilov and Hutter 2019).

    Groups are named ``encoder``, ``head`` (the classifier) and by the head's other parts (``crf``), each with
    ``/decayed`` or ``/not decayed``. With ``layer_decay``, the encoder is split into ``encoder.embeddings``,
    ``encoder.0`` and so on: the last layer has the full rate, each other layer ``layer_decay`` times the rate of the
    layer above (Howard and Ruder 2018, sec. 3.2).

    Args:
        optimisation: uses ``learning_rate``, ``head_learning_rate``, ``layer_decay`` and ``weight_decay``.
        model: the model; frozen weights are left out.
        head: options of its head, which may set rates for its parts; default: those of the head's class.
    """
    rates, layers, encoder = _rates_of_parts(optimisation, model, head), count_layers(model), model.base_model_prefix
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        learner, layer = part_of(name, encoder), layer_of(name, encoder)
        rate = rates[learner]
        decays = parameter.ndim > 1 and not name.endswith("bias")  # XLNet has two-dimensional biases
        if optimisation.layer_decay != 1 and layer is not None:
            learner = f"encoder.{layer if layer >= 0 else 'embeddings'}"
            rate *= optimisation.layer_decay ** (layers - 1 - layer)
        group = f"{learner}/{'decayed' if decays else 'not decayed'}"
        decay = optimisation.weight_decay if decays else 0.0
        empty: dict[str, Any] = {"name": group, "params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault(group, empty)["params"].append(parameter)
    return list(groups.values())


def count_layers(model: PreTrainedModel) -> int:
    """Number of encoder layers with weights of their own; 1 for ALBERT, whose layers share weights."""
    layers = (layer_of(name, model.base_model_prefix) for name, _ in model.named_parameters())
    return max((layer for layer in layers if layer is not None), default=-1) + 1


def _rates_of_parts(optimisation: OptimisationSettings, model: PreTrainedModel, head: Any) -> Mapping[str, float]:
    """Learning rates by part; ``--head_learning_rate`` sets that of the classifier and of parts without a rate."""
    own = model.learning_rates(head or model.Options()) if isinstance(model, Tagger) else {}
    asked, encoder = optimisation.head_learning_rate, optimisation.learning_rate
    lstm = optimisation.bilstm_learning_rate
    classifier = own.pop("classifier", lstm if hasattr(model, "bilstm") else encoder)
    rates = {"encoder": encoder, "head": asked if asked >= 0 else classifier}
    rates |= {"bilstm": lstm, **own}
    return defaultdict(lambda: asked if asked >= 0 else encoder, rates)
