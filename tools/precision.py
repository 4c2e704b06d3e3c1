"""Mixed precision: torch's own, or that of an apex that still has ``apex.amp``."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tools.arguments import NerArguments

logger = logging.getLogger(__name__)


def autocast(args: NerArguments) -> AbstractContextManager[Any]:
    """The context in which the model's forward pass runs."""
    if args.bf16 or (args.fp16 and not uses_apex(args)):
        dtype = torch.bfloat16 if args.bf16 else torch.float16
        return torch.autocast(args.device.type, dtype=dtype)
    return nullcontext()


def uses_apex(args: NerArguments) -> bool:
    """Whether fp16 goes through ``apex.amp``.

    Raises:
        ValueError: apex is asked for and there is none with amp, or float16 is asked for on a CPU.
    """
    if not args.fp16:
        return False
    if args.device.type == "cpu":
        raise ValueError("--fp16 needs a GPU; on a CPU use --bf16")
    if args.fp16_backend == "native":
        return False
    found = _apex_amp() is not None
    if args.fp16_backend == "apex" and not found:
        raise ValueError(
            "--fp16_backend apex: no apex with apex.amp is installed; NVIDIA removed it from apex in 2025 "
            "(the apex on PyPI is another package). Use --fp16_backend native, or --bf16"
        )
    return found


def _apex_amp() -> Any | None:
    try:
        from apex import amp
    except ImportError:
        return None
    return amp


class GradientStep:
    """Backward passes and the optimiser's step under the chosen precision.

    Args:
        args: precision and clipping.
        model, optimizer: as prepared; apex changes both.
    """

    def __init__(self, args: NerArguments, model: nn.Module, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self._amp = _apex_amp() if uses_apex(args) else None
        self._max_norm = args.max_grad_norm
        self._scaler = torch.amp.GradScaler(args.device.type, enabled=args.fp16 and self._amp is None)
        if self._amp is not None:
            self.model, self.optimizer = self._amp.initialize(model, optimizer, opt_level=args.fp16_opt_level)
        if args.fp16:
            backend = f"apex.amp, {args.fp16_opt_level}" if self._amp else "torch.amp"
            logger.info("Mixed precision in float16 through %s", backend)
            if self._amp is None and args.fp16_opt_level != "O1":
                logger.warning("torch.amp has no levels: --fp16_opt_level %s has no effect", args.fp16_opt_level)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those that are there."""
        if self._amp is not None:
            with self._amp.scale_loss(loss, self.optimizer) as scaled:
                scaled.backward()
        else:
            self._scaler.scale(loss).backward()

    def step(self) -> None:
        """Clips, updates the weights and clears the gradients."""
        parameters = self._amp.master_params(self.optimizer) if self._amp is not None else list(self.model.parameters())
        if self._amp is None:
            self._scaler.unscale_(self.optimizer)
        if self._max_norm > 0:
            nn.utils.clip_grad_norm_(parameters, self._max_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
