"""Training statistics: loss, speed, padding, device utilisation, memory, and steps that are not finite.

Loss and gradient norms stay on the device until they are reported, so that training never waits for it. Speed excludes
the first step of a process, in which kernels and models are compiled.
"""

import time
import timeit
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from callbacks import TrainState
from processors.features.dataset import FeatureDataset
from tools.distributed import is_main, sum_over_ranks, world_size
from tools.run_folder import write_json

_SIDE = {"cuda": 8192}  # side of the square matrices that measure the peak speed, by device type
_SIDE_ELSEWHERE = 512
_PRODUCTS = 5
_WINDOWS = (8, 16, 32)  # tokens


class _Sums(NamedTuple):
    """Counts over all ranks, unless noted otherwise."""

    loss: float = 0.0
    steps: float = 0
    words: float = 0
    tokens: float = 0
    flops: float = 0.0
    computed_tokens: float = 0  # with padding; this rank's until reported
    seconds: float = 0.0

    def plus(self, other: "_Sums", sign: int = 1) -> "_Sums":
        return _Sums(*(one + sign * another for one, another in zip(self, other, strict=True)))


class Meter:
    """Accumulates losses on the device, and words and time on the host; reads the losses only in `report`.

    Args:
        device: device of the losses.
        peak_flops: peak floating-point operations per second of all devices together.
    """

    def __init__(self, device: torch.device, peak_flops: float) -> None:
        self._peak_flops = peak_flops
        self._loss = torch.zeros((), device=device)
        self._recent, self.total = _Sums(), _Sums()
        self._recent_first, self._total_first = _Sums(), _Sums()  # the share of first steps
        self._is_warm = False
        self._clock = time.perf_counter()

    def add_loss(self, loss: Tensor) -> None:
        """Add this rank's share of a step's mean loss. Losses that are not finite are ignored: the step is skipped."""
        self._loss += torch.where(loss.isfinite(), loss, 0.0)

    def add_step(self, words: int, tokens: int, computed_tokens: int, flops: float) -> None:
        """Count a step.

        Args:
            words, tokens, flops: over all ranks, without padding.
            computed_tokens: tokens of this rank, with padding.
        """
        counted = _Sums(steps=1, words=words, tokens=tokens, flops=flops)
        if not self._is_warm:
            self._is_warm = True
            seconds = time.perf_counter() - self._clock - self._recent.seconds
            self._recent_first = self._recent_first.plus(counted._replace(seconds=seconds))
        self._recent = self._recent.plus(counted._replace(computed_tokens=computed_tokens))

    @property
    def has_news(self) -> bool:
        """Whether steps were counted since the last report."""
        return self._recent.steps > 0

    def report(self, state: TrainState) -> None:
        """Write the means since the last report into the state. All ranks must call it."""
        recent = self._of_all_ranks()
        state.loss = recent.loss / recent.steps
        timed = _without_first_steps(recent, self._recent_first)
        state.words_per_second = timed.words / timed.seconds
        state.tokens_per_second = timed.tokens / timed.seconds
        state.utilisation = timed.flops / timed.seconds / self._peak_flops
        state.padding_share = 1 - recent.tokens / recent.computed_tokens
        self.total, self._total_first = self.total.plus(recent), self._total_first.plus(self._recent_first)
        self._recent, self._recent_first = _Sums(), _Sums()
        self._loss.zero_()
        self._clock = time.perf_counter()

    @property
    def words_per_second(self) -> float:
        """Words per second over all reports."""
        timed = _without_first_steps(self.total, self._total_first)
        return timed.words / timed.seconds

    @property
    def utilisation(self) -> float:
        """Share of the devices' peak FLOP/s over all reports."""
        timed = _without_first_steps(self.total, self._total_first)
        return timed.flops / timed.seconds / self._peak_flops

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of the block from the speed."""
        start = time.perf_counter()
        yield
        self._clock += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        first = {"recent": self._recent_first._asdict(), "total": self._total_first._asdict()}
        return {"recent": self._of_all_ranks()._asdict(), "total": self.total._asdict(), "first_steps": first}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore saved counts; sums over ranks are assigned to rank 0."""
        self._recent, self.total = _Sums(**saved["recent"]), _Sums(**saved["total"])
        first = saved.get("first_steps", {"recent": {}, "total": {}})
        self._recent_first, self._total_first = _Sums(**first["recent"]), _Sums(**first["total"])
        self._clock = time.perf_counter() - self._recent.seconds
        self._loss.fill_(self._recent.loss if is_main() else 0.0)
        if not is_main():
            self._recent = self._recent._replace(computed_tokens=0)

    def _of_all_ranks(self) -> _Sums:
        counted = self._loss.new_tensor(self._recent.computed_tokens, dtype=torch.float64)
        loss, computed = sum_over_ranks(torch.stack([self._loss.double(), counted])).tolist()
        seconds = time.perf_counter() - self._clock
        return self._recent._replace(loss=loss, computed_tokens=int(computed), seconds=seconds)


def _without_first_steps(sums: _Sums, first: _Sums) -> _Sums:
    """Subtract first steps, unless there are no other steps."""
    return sums.plus(first, sign=-1) if sums.steps > first.steps else sums


class EncoderCost(NamedTuple):
    """Floating-point operations of the encoder's matrix products in a forward pass over T tokens.

    Args:
        token: coefficient of T: twice the number of weights used per token.
        pair: coefficient of T squared: attention.
    """

    token: float
    pair: float

    def of_training(self, lengths: NDArray[np.int32]) -> float:
        """Operations of forward and backward passes over windows of these lengths, without padding or recomputation."""
        tokens = lengths.astype(np.float64)
        return 3 * float(self.token * tokens.sum() + self.pair * (tokens**2).sum())


def encoder_cost(model: PreTrainedModel) -> EncoderCost:
    """Fit the cost to the operations counted in three small windows, which works for any encoder family."""
    was_training = model.training
    model.eval()  # dropout would draw random numbers
    counts = [_forward_flops(model, tokens) for tokens in _WINDOWS]
    model.train(was_training)
    pair, token, _ = np.polyfit(_WINDOWS, counts, deg=2)
    return EncoderCost(float(token), float(pair))


def _forward_flops(model: PreTrainedModel, tokens: int) -> int:
    ids = torch.ones(1, tokens, dtype=torch.long, device=model.device)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.base_model(ids, attention_mask=torch.ones_like(ids))
    return counter.get_total_flops()


def peak_flops(device: torch.device, dtype: torch.dtype, n_gpu: int) -> float:
    """Measure the floating-point operations per second of all devices together in a product of large matrices."""
    side = _SIDE.get(device.type, _SIDE_ELSEWHERE)
    factor = torch.ones(side, side, dtype=dtype, device=device)  # not random, to leave the random state unchanged

    def multiply() -> None:
        torch.mm(factor, factor)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds = min(timeit.repeat(multiply, number=1, repeat=_PRODUCTS))
    return 2 * side**3 / seconds * world_size() * max(1, n_gpu)


class NonFiniteSteps:
    """Counts steps that are not finite, and stops training after too many in a row, writing their batches to a file.

    Args:
        describe: content of an item of the batches, by its index.
        file: file to write the batches to.
        patience: number of consecutive steps after which training stops.
    """

    def __init__(self, describe: Callable[[int], dict[str, Any]], file: Path, patience: int) -> None:
        self._describe, self._file, self._patience = describe, file, patience
        self._pending: list[tuple[int, NDArray[np.int64], Tensor]] = []
        self._finite: list[float] = []
        self._in_a_row: list[tuple[int, list[int], float]] = []
        self.total = 0

    def add(self, step: int, windows: NDArray[np.int64], norm: Tensor) -> None:
        """Record the gradient norm of a step; it stays on its device."""
        self._pending.append((step, windows, norm))

    def look(self) -> float:
        """Mean of the finite gradient norms since the last call.

        Raises:
            FloatingPointError: too many consecutive steps were not finite.
        """
        self._read()
        finite, self._finite = self._finite, []
        return float(np.mean(finite)) if finite else float("nan")

    def _read(self) -> None:
        norms = [(step, windows.tolist(), float(norm)) for step, windows, norm in self._pending]
        self._pending.clear()
        for step, windows, norm in norms:
            if np.isfinite(norm):
                self._finite.append(norm)
                self._in_a_row.clear()
                continue
            self.total += 1
            self._in_a_row.append((step, windows, norm))
            if len(self._in_a_row) == self._patience:
                if is_main():
                    write_json(self._file, [self._described(*step) for step in self._in_a_row])
                advice = "lower --learning_rate, use --bf16 instead of --fp16, or inspect their texts in"
                these = f"{self._patience} steps in a row ({self._in_a_row[0][0]} to {step})"
                raise FloatingPointError(f"loss or gradients of {these} were not finite; {advice} {self._file}")

    def state_dict(self) -> dict[str, Any]:
        self._read()
        return {"total": self.total, "finite": self._finite, "in_a_row": self._in_a_row}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.total = saved["total"]
        self._finite, self._in_a_row = list(saved["finite"]), list(saved["in_a_row"])

    def _described(self, step: int, windows: list[int], norm: float) -> dict[str, Any]:
        return {"step": step, "gradient_norm": str(norm), "windows": [self._describe(one) for one in windows]}


def described_window(dataset: FeatureDataset, tokenizer: PreTrainedTokenizerBase, index: int) -> dict[str, Any]:
    """Content of a window for the file of `NonFiniteSteps`."""
    window = dataset[index]
    document = dataset.document(window.document)
    return {
        "guid": document.guid,
        "words": document.words[window.first_word : window.first_word + len(window.word_positions)],
        "entities": [entity._asdict() for entity in window.annotation.entities or ()],
        "tokens": tokenizer.convert_ids_to_tokens(window.input_ids.tolist()),
    }
