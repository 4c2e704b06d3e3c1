"""How much of what the devices can compute a training makes use of."""

import sys
import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.tagger import Tagger
from tools.arguments import NerArguments
from tools.distributed import world_size

_SIDE = {"cuda": 8192}  # of the matrices whose product shows what a device can do
_SIDE_ELSEWHERE = 512
_PRODUCTS = 5
_WINDOWS = (8, 16, 32)


class EncoderCost(NamedTuple):
    """Floating-point operations of the encoder's matrix products, forward, for a window of T tokens.

    Args:
        token: times T; twice the weights that a token meets.
        pair: times T squared; the attention.
    """

    token: float
    pair: float

    def of_training(self, lengths: NDArray[np.int32]) -> float:
        """Forward and backward over windows of these lengths; padding and what is computed twice do not count."""
        tokens = lengths.astype(np.float64)
        return 3 * float(self.token * tokens.sum() + self.pair * (tokens**2).sum())


def encoder_cost(model: Tagger) -> EncoderCost:
    """Counted in three small windows, so that it holds for any family."""
    was_training = model.training
    model.eval()  # dropout would draw random numbers
    counts = [_forward_flops(model, tokens) for tokens in _WINDOWS]
    model.train(was_training)
    pair, token, _ = np.polyfit(_WINDOWS, counts, deg=2)
    return EncoderCost(float(token), float(pair))


def _forward_flops(model: Tagger, tokens: int) -> int:
    ids = torch.ones(1, tokens, dtype=torch.long, device=model.device)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.base_model(ids, attention_mask=torch.ones_like(ids))
    return counter.get_total_flops()


def peak_flops(args: NerArguments) -> float:
    """Operations a second that all devices together reach in a product of large matrices, in the run's precision."""
    device, dtype = args.device, torch.float32
    if args.bf16 or args.fp16:
        dtype = torch.bfloat16 if args.bf16 else torch.float16
    side = _SIDE.get(device.type, _SIDE_ELSEWHERE)
    factor = torch.ones(side, side, dtype=dtype, device=device)  # not random: the run's random numbers stay its own
    seconds = min(_seconds_of_product(factor) for _ in range(_PRODUCTS))
    return 2 * side**3 / seconds * world_size() * max(1, args.n_gpu)


def _seconds_of_product(factor: torch.Tensor) -> float:
    _synchronize(factor.device)
    start = time.perf_counter()
    factor @ factor
    _synchronize(factor.device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> float:
    """GiB: of tensors on this process's GPU at most, or of the whole process at most; 0 where nobody can tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
