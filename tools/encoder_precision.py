"""Lighter encoders for prediction: weights in bfloat16, or linear layers in int8. Heads and CRF stay in float32."""

import logging
import warnings

import torch
from torch import nn

from models.tagger import Tagger

logger = logging.getLogger(__name__)
PRECISIONS = ("fp32", "bf16", "int8")


def set_encoder_precision(model: Tagger, precision: str, device: torch.device) -> None:
    """Changes the encoder in place; it can then no longer be trained.

    Args:
        precision: ``fp32``; ``bf16``; or ``int8``: weights of linear layers by channel, activations as they come.
        device: where the model will run.

    Raises:
        ValueError: the precision is unknown, or int8 is asked for elsewhere than on a CPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    encoder: nn.Module = getattr(model, model.base_model_prefix)
    if precision == "bf16":
        if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            logger.warning("this CPU does not compute in bfloat16 itself: bf16 will be slower than fp32")
        encoder.to(torch.bfloat16)
    if precision == "int8":
        if device.type != "cpu":
            raise ValueError(f"int8 runs on a CPU, not on {device}; use bf16")
        _quantize(encoder)


def _quantize(encoder: nn.Module) -> None:
    with warnings.catch_warnings():  # deprecated in favour of torchao, whose int8 needs a compiler to be fast on a CPU
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic

        quantize_dynamic(encoder, {nn.Linear}, dtype=torch.qint8, inplace=True)
