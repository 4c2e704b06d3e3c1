"""Times trainings of any library: it needs only torch, so that libraries in environments of their own can use it."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from common.memory import peak_memory


class Stopwatch:
    """Times a training without its first step, in which kernels are compiled, and counts what the model computes.

    Args:
        encoder: on its device.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self._device = next(encoder.parameters()).device
        encoder.register_forward_pre_hook(self._count, with_kwargs=True)
        self._start()

    def _start(self) -> None:
        self._synchronise()
        self._sentences = self._computed = 0
        self._real = torch.zeros((), dtype=torch.long, device=self._device)
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _count(self, encoder: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = inputs[0] if inputs else named["input_ids"]
        self._sentences += len(ids)
        self._computed += ids.numel()
        mask = named.get("attention_mask")
        self._real += ids.numel() if mask is None else mask.sum()

    def end_step(self, step: int, total_steps: int) -> None:
        """Report a step, counted from 1."""
        if step == 1:
            self._start()
        elif step == total_steps:
            self._synchronise()
            self.measured = Measured(
                sentences=self._sentences,
                seconds=time.perf_counter() - self._clock,
                processor_seconds=time.process_time() - self._processor,
                tokens=int(self._real),
                computed_tokens=self._computed,
                memory_gib=peak_memory(self._device),
            )


@dataclass(frozen=True)
class Measured:
    """A training after its first step.

    Args:
        sentences, tokens: of the texts, over all epochs.
        seconds, processor_seconds: on the clock, and of the processors.
        computed_tokens: tokens with padding.
        memory_gib: peak memory on the GPU or, on a CPU, of the process.
        f1: of dev, after the last step.
    """

    sentences: int
    seconds: float
    processor_seconds: float
    tokens: int
    computed_tokens: int
    memory_gib: float
    f1: float = 0.0
