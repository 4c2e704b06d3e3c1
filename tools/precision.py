"""Mixed precision: torch's own, or that of an apex that still has ``apex.amp``."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tools.arguments import NerArguments

logger = logging.getLogger(__name__)


def set_precision(args: NerArguments) -> None:
    """Prepares this process for the precision that the arguments choose.

    Raises:
        ValueError: the device or the installation does not have it.
    """
    uses_apex(args)
    if args.tf32:
        if args.device.type == "cpu":
            raise ValueError("--tf32 needs a GPU; on a CPU use --bf16")
        torch.set_float32_matmul_precision("high")


def autocast(args: NerArguments) -> AbstractContextManager[Any]:
    """The context in which the model's forward pass runs."""
    if args.bf16 or (args.fp16 and not uses_apex(args)):
        dtype = torch.bfloat16 if args.bf16 else torch.float16
        return torch.autocast(args.device.type, dtype=dtype)
    return nullcontext()


def uses_apex(args: NerArguments) -> bool:
    """Whether fp16 goes through ``apex.amp``.

    Raises:
        ValueError: apex is asked for and there is none with amp or the optimiser is sharded, or float16 on a CPU.
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
    if found and args.shard_optimizer:
        raise ValueError("--shard_optimizer does not go together with apex.amp; add --fp16_backend native")
    return found


def _apex_amp() -> Any | None:
    try:
        from apex import amp
    except ImportError:
        return None
    return amp


class GradientStep:
    """Backward passes and the optimiser's step under the chosen precision.

    A step whose loss or gradients are not finite changes nothing, on all ranks alike.

    Args:
        args: precision and clipping.
        model, optimizer: as prepared; apex changes both.
    """

    def __init__(self, args: NerArguments, model: nn.Module, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self._amp = _apex_amp() if uses_apex(args) else None
        self._max_norm = args.max_grad_norm
        self._scales = args.fp16 and self._amp is None
        # Without float16 the scale stays 1: the scaler then only leaves out steps, and on a GPU does not wait for it.
        self._scaler = torch.amp.GradScaler(
            args.device.type, init_scale=2.0**16 if self._scales else 1.0, enabled=self._amp is None
        )
        if self._amp is not None:
            self.model, self.optimizer = self._amp.initialize(model, optimizer, opt_level=args.fp16_opt_level)
        if args.fp16:
            backend = f"apex.amp, {args.fp16_opt_level}" if self._amp else "torch.amp"
            logger.info("Mixed precision in float16 through %s", backend)
            if self._amp is None and args.fp16_opt_level != "O1":
                logger.warning("torch.amp has no levels: --fp16_opt_level %s has no effect", args.fp16_opt_level)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those that are there."""
        # Gradients of an infinite loss can be finite; made NaN, they tell all ranks to leave the step out.
        loss = loss * torch.where(loss.detach().isfinite(), 1.0, float("nan"))
        if self._amp is not None:
            with self._amp.scale_loss(loss, self.optimizer) as scaled:
                scaled.backward()
        else:
            self._scaler.scale(loss).backward()

    def step(self) -> Tensor:
        """Clips, updates the weights and clears the gradients; returns the gradients' norm before clipping."""
        if self._amp is not None:
            norm = self._clip(list(self._amp.master_params(self.optimizer)))
            self.optimizer.step()
        else:
            self._scaler.unscale_(self.optimizer)
            norm = self._clip([parameter for group in self.optimizer.param_groups for parameter in group["params"]])
            self._scaler.step(self.optimizer)
            self._scaler.update(None if self._scales else 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _clip(self, parameters: list[Tensor]) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, self._max_norm if self._max_norm > 0 else float("inf"))

    def state_dict(self) -> dict[str, Any]:
        return {"apex": self._amp.state_dict()} if self._amp is not None else self._scaler.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on with another's loss scale.

        Raises:
            ValueError: the other one was of another precision.
        """
        if ("apex" in saved) != (self._amp is not None):
            raise ValueError("the loss scale is of the other --fp16_backend")
        if self._amp is not None:
            self._amp.load_state_dict(saved["apex"])
        elif self._scales:
            self._scaler.load_state_dict(dict(saved))
