"""The optimiser and the schedule that the flags of the Lightning scripts choose."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler
from transformers.optimization import Adafactor

from tools.arguments import NerArguments
from tools.optimizer import build_optimizer

_SCHEDULES = {"cosine_w_restarts": "cosine_with_restarts", "constant": "constant_with_warmup"}


def build_lightning_optimizer(
    args: NerArguments, hparams: Mapping[str, Any], model: nn.Module, total_steps: int
) -> tuple[Optimizer, LRScheduler]:
    """AdamW or Adafactor, with the groups of the other scripts, and the schedule over ``total_steps``."""
    optimizer = build_optimizer(args, model)
    kept = ("name", "params", "lr", "weight_decay")
    groups = [{key: group[key] for key in kept} for group in optimizer.param_groups]
    if hparams["adafactor"]:
        optimizer = Adafactor(groups, scale_parameter=False, relative_step=False)
    elif hparams["fp16"] or hparams["bf16"]:
        optimizer = AdamW(groups, eps=args.adam_epsilon)  # Lightning clips under mixed precision only what is not fused
    name = _SCHEDULES.get(hparams["lr_scheduler"], hparams["lr_scheduler"])
    warmup = hparams["warmup_steps"] or int(hparams["warmup_proportion"] * total_steps)
    return optimizer, get_scheduler(name, optimizer, warmup, total_steps)
