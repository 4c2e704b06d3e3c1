"""The optimiser with a rate for each part of the model, and the schedule of the rates."""

import json
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler
from transformers.optimization import Adafactor

from tools.arguments import OptimisationArguments
from tools.parameter_groups import parameter_groups


def build_optimizer(args: OptimisationArguments, model: nn.Module) -> Optimizer:
    """The optimiser that ``args.optim`` names, over the groups of `tools.parameter_groups`.

    Raises:
        ValueError: apex is asked for and not installed.
    """
    kind, options = optimizer_class(args)
    return kind(parameter_groups(args, model), **options)


def optimizer_class(args: OptimisationArguments) -> tuple[type[Optimizer], dict[str, Any]]:
    """What to make an optimiser from, and the options that all groups share."""
    rate = args.learning_rate
    if args.optim == "adafactor":  # without its own rates, by step and by size of the weights: the schedule's count
        return Adafactor, {"lr": rate, "scale_parameter": False, "relative_step": False}
    if args.optim == "apex_fused_adam":
        return _apex_fused_adam(), {"lr": rate, "eps": args.adam_epsilon, "adam_w_mode": True}
    return AdamW, {"lr": rate, "eps": args.adam_epsilon, "fused": args.optim == "adamw_torch_fused"}


def _apex_fused_adam() -> type[Optimizer]:
    try:
        from apex.optimizers import FusedAdam
    except ImportError as error:
        raise ValueError(
            "--optim apex_fused_adam: NVIDIA's apex is not installed, or without its CUDA extensions (the apex on PyPI "
            f"is another package); use --optim adamw_torch_fused, which computes the same ({error})"
        ) from error
    return FusedAdam


def build_schedule(args: OptimisationArguments, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """The course of the rates over a run: up in the warm-up, then as ``args.lr_scheduler_type`` has it.

    Raises:
        ValueError: ``args.lr_scheduler_kwargs`` are not this schedule's, or lack what it needs.
    """
    warmup = args.warmup_steps or int(args.warmup_proportion * total_steps)
    try:
        options = json.loads(args.lr_scheduler_kwargs or "{}")
        return get_scheduler(args.lr_scheduler_type, optimizer, warmup, total_steps, options)
    except (TypeError, ValueError) as error:
        schedule = f"--lr_scheduler_type {args.lr_scheduler_type} --lr_scheduler_kwargs '{args.lr_scheduler_kwargs}'"
        raise ValueError(f"{schedule}: {error}") from error
