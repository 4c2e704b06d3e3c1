"""Loss, speed and padding of a training, added up without waiting for the device.

Speed is that of the steps after a process's first one, in which kernels and models are compiled.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from callbacks import TrainState
from tools.distributed import is_main, sum_over_ranks
from tools.feed import Step


@dataclass
class _Sums:
    """What has been counted, of all ranks where not said otherwise."""

    loss: float = 0.0
    steps: int = 0
    words: int = 0
    tokens: int = 0
    flops: float = 0.0
    computed_tokens: int = 0  # with padding; of this rank until it is reported
    seconds: float = 0.0

    def __iadd__(self, other: "_Sums") -> "_Sums":
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def __sub__(self, other: "_Sums") -> "_Sums":
        return _Sums(**{name: value - getattr(other, name) for name, value in asdict(self).items()})


class Meter:
    """Adds up losses on the device, words and time on the host; looks at the losses only when asked.

    Args:
        device: of the losses.
        peak_flops: floating-point operations a second that all devices together can do.
    """

    def __init__(self, device: torch.device, peak_flops: float) -> None:
        self._peak_flops = peak_flops
        self._loss = torch.zeros((), device=device)
        self._recent, self.total = _Sums(), _Sums()
        self._recent_first, self._total_first = _Sums(), _Sums()  # what of it belongs to first steps
        self._is_warm = False
        self._clock = time.perf_counter()

    def add_loss(self, loss: Tensor) -> None:
        """Adds this rank's share of a step's mean loss; one that is not finite belongs to a step that is left out."""
        self._loss += torch.where(loss.isfinite(), loss, 0.0)

    def add_step(self, step: Step, words: int, tokens: int, flops: float) -> None:
        """Counts a step of so many words, tokens and floating-point operations on all ranks."""
        counted = _Sums(steps=1, words=words, tokens=tokens, flops=flops)
        if not self._is_warm:
            self._is_warm = True
            seconds = time.perf_counter() - self._clock - self._recent.seconds
            self._recent_first += replace(counted, seconds=seconds)
        self._recent += counted
        self._recent.computed_tokens += sum(batch["input_ids"].numel() for batch in step.batches)

    @property
    def has_news(self) -> bool:
        """Whether steps were counted since the last report."""
        return self._recent.steps > 0

    def report(self, state: TrainState) -> None:
        """Writes the means since the last report into the state. All ranks must call it."""
        recent = self._of_all_ranks()
        state.loss = recent.loss / recent.steps
        timed = _without_first_steps(recent, self._recent_first)
        state.words_per_second = timed.words / timed.seconds
        state.tokens_per_second = timed.tokens / timed.seconds
        state.utilisation = timed.flops / timed.seconds / self._peak_flops
        state.padding_share = 1 - recent.tokens / recent.computed_tokens
        self.total += recent
        self._total_first += self._recent_first
        self._recent, self._recent_first = _Sums(), _Sums()
        self._loss.zero_()
        self._clock = time.perf_counter()

    @property
    def words_per_second(self) -> float:
        """Of all that was reported."""
        timed = _without_first_steps(self.total, self._total_first)
        return timed.words / timed.seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what is done meanwhile out of the speed."""
        start = time.perf_counter()
        yield
        self._clock += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        first = {"recent": asdict(self._recent_first), "total": asdict(self._total_first)}
        return {"recent": asdict(self._of_all_ranks()), "total": asdict(self.total), "first_steps": first}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on from another meter's counts; those of a rank are rank 0's from now on."""
        self._recent, self.total = _Sums(**saved["recent"]), _Sums(**saved["total"])
        first = saved.get("first_steps", {"recent": {}, "total": {}})
        self._recent_first, self._total_first = _Sums(**first["recent"]), _Sums(**first["total"])
        self._clock = time.perf_counter() - self._recent.seconds
        self._loss.fill_(self._recent.loss if is_main() else 0.0)
        self._recent.computed_tokens *= is_main()

    def _of_all_ranks(self) -> _Sums:
        counted = self._loss.new_tensor(self._recent.computed_tokens, dtype=torch.float64)
        loss, computed = sum_over_ranks(torch.stack([self._loss.double(), counted])).tolist()
        return replace(
            self._recent, loss=loss, computed_tokens=int(computed), seconds=time.perf_counter() - self._clock
        )


def _without_first_steps(sums: _Sums, first: _Sums) -> _Sums:
    """What there is beside first steps; where there is nothing else, they themselves."""
    return sums - first if sums.steps > first.steps else sums
