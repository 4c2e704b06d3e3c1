"""Times trainings of any library: it needs only torch, so that libraries in environments of their own can use it."""

import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from common.memory import peak_memory

TURNS = "BENCHMARK_TURNS"  # environment variable with the descriptors of the pipes of `Turns`

_STEPS_OF_A_TURN = 4


class Turns:
    """Takes turns with the other contestants, so that all see the same good and bad moments of a shared machine.

    The race gives the descriptors of two pipes: a contestant reports on one that its turn is over, and waits for a byte
    on the other. Without a race, nothing waits.
    """

    def __init__(self) -> None:
        self._pipes = [int(number) for number in os.environ.get(TURNS, "").split(",") if number]

    def wait(self) -> None:
        """End the turn, and wait for the next."""
        if self._pipes:
            turn, over = self._pipes
            os.write(over, b".")
            os.read(turn, 1)


class Stopwatch:
    """Times a training without its first step, in which kernels are compiled, and counts what the model computes.

    Args:
        encoder: on its device.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self._device = next(encoder.parameters()).device
        self._turns = Turns()
        encoder.register_forward_pre_hook(self._count, with_kwargs=True)
        self._reset()

    def _reset(self) -> None:
        self._sentences = self._computed = 0
        self._real = torch.zeros((), dtype=torch.long, device=self._device)
        self._seconds = self._processor_seconds = 0.0

    def _pause(self) -> None:
        """Stop the clocks while others have their turns."""
        self._synchronise()
        self._seconds += time.perf_counter()
        self._processor_seconds += time.process_time()
        self._turns.wait()
        self._seconds -= time.perf_counter()
        self._processor_seconds -= time.process_time()

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
            self._turns.wait()
            self._synchronise()
            self._reset()
            self._seconds, self._processor_seconds = -time.perf_counter(), -time.process_time()
        elif step == total_steps:
            self._synchronise()
            self.measured = Measured(
                sentences=self._sentences,
                seconds=self._seconds + time.perf_counter(),
                processor_seconds=self._processor_seconds + time.process_time(),
                tokens=int(self._real),
                computed_tokens=self._computed,
                memory_gib=peak_memory(self._device),
            )
            self._turns.wait()
        elif (step - 1) % _STEPS_OF_A_TURN == 0:
            self._pause()


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
