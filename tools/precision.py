"""Mixed precision with torch.amp, or with ``apex.amp`` if that is installed."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tools.embedding_gradient import EmbeddingGradient
from tools.settings import MachineSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """Precision of forward and backward passes.

    Args:
        device: device of the model.
        dtype: type of matrix products; float32 means no mixed precision.
        apex: ``apex.amp``, if float16 uses it.
        apex_level: optimisation level of ``apex.amp``.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    apex: Any = None
    apex_level: str = "O1"

    def autocast(self) -> AbstractContextManager[Any]:
        """Context for the forward pass of the model."""
        if self.dtype == torch.float32 or self.apex:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def choose_precision(machine: MachineSettings, device: torch.device) -> Precision:
    """Choose the precision from the settings. With ``tf32``, also sets it for this process.

    Raises:
        ValueError: the device or the installation does not support it.
    """
    for flag in ("fp16", "tf32"):
        if getattr(machine, flag) and device.type == "cpu":
            raise ValueError(f"--{flag} needs a GPU; on a CPU use --bf16")
    if machine.tf32:
        torch.set_float32_matmul_precision("high")
    if not machine.fp16:
        return Precision(device, torch.bfloat16 if machine.bf16 else torch.float32)
    apex = None if machine.fp16_backend == "native" else _apex_amp()
    if machine.fp16_backend == "apex" and not apex:
        raise ValueError(
            "--fp16_backend apex: apex.amp is not installed; NVIDIA removed it from apex in 2025 "
            "(the apex on PyPI is a different package). Use --fp16_backend native, or --bf16"
        )
    if apex and machine.shard_optimizer:
        raise ValueError("--shard_optimizer does not support apex.amp; add --fp16_backend native")
    return Precision(device, torch.float16, apex, machine.fp16_opt_level)


def _apex_amp() -> Any | None:
    try:
        from apex import amp
    except ImportError:
        return None
    return amp


class GradientStep:
    """Backward passes, gradient clipping and optimiser steps in the chosen precision.

    A step with a loss or gradients that are not finite is skipped, on all ranks.

    Args:
        precision: precision of the passes.
        model, optimizer: model and optimiser; apex replaces both.
        embedding: gradient of the embedding table, if it is kept between steps.
    """

    def __init__(
        self,
        precision: Precision,
        model: nn.Module,
        optimizer: Optimizer,
        embedding: EmbeddingGradient | None = None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self._embedding = embedding
        self._amp = precision.apex
        is_half = precision.dtype == torch.float16
        self._scaler = torch.amp.GradScaler(precision.device.type) if is_half and self._amp is None else None
        self._norm = torch.zeros(())
        if self._amp is not None:
            self.model, self.optimizer = self._amp.initialize(model, optimizer, opt_level=precision.apex_level)
        if is_half:
            backend = f"apex.amp, {precision.apex_level}" if self._amp else "torch.amp"
            logger.info("Mixed precision in float16 with %s", backend)
            if self._amp is None and precision.apex_level != "O1":
                logger.warning("--fp16_opt_level %s has no effect: torch.amp has no levels", precision.apex_level)

    def backward(self, loss: Tensor, run: Callable[[Tensor], Any] = Tensor.backward) -> None:
        """Accumulate the gradients of a loss.

        Args:
            run: function that runs the backward pass from the scaled loss.
        """
        # Gradients of an infinite loss can be finite; NaN makes all ranks skip the step.
        loss = loss * torch.where(loss.detach().isfinite(), 1.0, float("nan"))
        if self._amp is not None:
            with self._amp.scale_loss(loss, self.optimizer) as scaled:
                run(scaled)
        else:
            run(self._scaler.scale(loss) if self._scaler else loss)

    def clip(self, max_norm: float) -> Tensor:
        """Clip the gradients to ``max_norm`` (0: no clipping), and return their norm before clipping."""
        if self._amp is not None:
            parameters = list(self._amp.master_params(self.optimizer))
        else:
            if self._scaler:
                self._scaler.unscale_(self.optimizer)
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self._embedding:
            self._embedding.check()
        self._norm = nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
        # A GPU must not be waited for; on a CPU this saves a pass over the gradients that multiplies them by 1.
        if max_norm > 0 and (self._norm.device.type != "cpu" or max_norm / (self._norm + 1e-6) < 1):
            nn.utils.clip_grads_with_norm_(parameters, max_norm, self._norm)
        return self._norm

    def step(self) -> None:
        """Update the weights and clear the gradients. Gradients must be clipped before."""
        if self._amp is not None:
            self.optimizer.step()
        elif self._scaler:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        elif getattr(self.optimizer, "_step_supports_amp_scaling", False):
            # As GradScaler does it: fused optimisers skip the step on the device, which is not synchronised.
            self.optimizer.found_inf = (~self._norm.isfinite()).float()  # type: ignore[attr-defined]
            self.optimizer.step()
            del self.optimizer.found_inf  # type: ignore[attr-defined]
        elif self._norm.isfinite():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self._embedding:
            self._embedding.clear()

    def state_dict(self) -> dict[str, Any]:
        if self._amp is not None:
            return {"apex": self._amp.state_dict()}
        return self._scaler.state_dict() if self._scaler else {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore the loss scale.

        Raises:
            ValueError: it was saved with the other ``--fp16_backend``.
        """
        if ("apex" in saved) != (self._amp is not None):
            raise ValueError("the loss scale was saved with the other --fp16_backend")
        if self._amp is not None:
            self._amp.load_state_dict(saved["apex"])
        elif self._scaler:
            self._scaler.load_state_dict(dict(saved))
