"""The CPU backend: numba kernels, one sentence a thread. Importing this package imports numba."""

import functools
import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..chains import NO_PATH, SCALED, Chains, Gradients, State, raise_for_rows
from ..lattice import Lattice
from . import threads
from .job import Job
from .kernels import compile_kernel
from .lanes import ROWS, padded

logger = logging.getLogger(__name__)
NOTICE_AFTER = 2.0  # seconds without a kernel after which it is said what is being waited for
CHUNKS = 32  # parts that a batch is divided into; more would only cost memory for their sums
PARALLEL_NS = 20_000  # work that is worth several threads
# Eight rows at a time are faster for few tags, and for some more if there are groups enough for several threads.
ALWAYS_ABREAST, MANY_ABREAST, MANY_ROWS = 16, 32, 32


class NumbaBackend:
    """See `Backend`. With `row_by_row` each row is computed by itself, however few tags there are."""

    def __init__(self, row_by_row: bool = False) -> None:
        self.row_by_row = row_by_row

    def state_width(self, rows: int, num_tags: int) -> int:
        return 0 if self._abreast(rows, num_tags) else padded(num_tags)

    def _abreast(self, rows: int, num_tags: int) -> bool:
        most = MANY_ABREAST if rows >= MANY_ROWS else ALWAYS_ABREAST
        return num_tags <= most and not self.row_by_row

    def forward(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        B, W, C = chains.emissions.shape
        value, alpha = chains.emissions.new_empty(B), chains.emissions.new_empty(B, W, self.state_width(B, C))
        mode = value.new_empty(B, dtype=torch.uint8)
        job, abreast = self._divided(chains, tags)
        job.value, job.mode, job.alpha = value.data_ptr(), mode.data_ptr(), alpha.data_ptr()
        self._run("sweep", job, value.dtype, abreast)
        if job.fault:
            raise_for_rows(mode)
        return value, State(alpha, mode)

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        job, abreast = self._divided(chains, tags)
        job.mode, job.alpha = state.mode.data_ptr(), state.alpha.data_ptr()
        job.grad, (job.grad_row,) = grad.data_ptr(), grad.stride()
        sums = grad.new_empty(_sums(job), dtype=torch.float64)
        job.sums = sums.data_ptr()
        gradients = _gradients(job, chains)
        self._run("sweep", job, grad.dtype, abreast)
        return gradients

    def sum_at_once(self, chains: Chains, tags: Tensor) -> tuple[Tensor, Gradients]:
        job, abreast = self._divided(chains, tags)
        B, sums, emissions = job.rows, _sums(job), chains.emissions
        # In one tensor, for each costs a microsecond: sums, values of rows, modes of rows.
        work = emissions.new_empty(sums + 2 * B, dtype=torch.float64)
        job.sums = work.data_ptr()
        job.value, job.mode = job.sums + 8 * sums, job.sums + 8 * (sums + B)
        total = emissions.new_empty(()) if B else emissions.new_zeros(())
        job.total = total.data_ptr()
        gradients = _gradients(job, chains)
        self._run("sweep", job, emissions.dtype, abreast)
        if job.fault:
            raise_for_rows(work[-B:].view(torch.uint8)[:B])
        return total, gradients

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        B, W, _ = chains.emissions.shape
        paths, scores = chains.emissions.new_empty(B, W, dtype=torch.int64), chains.emissions.new_empty(B)
        job, abreast = self._divided(chains, None)
        job.value, job.paths, job.padding = scores.data_ptr(), paths.data_ptr(), padding
        self._run("decode", job, scores.dtype, abreast)
        if job.fault:
            raise_for_rows(torch.where(scores.isneginf(), NO_PATH, SCALED))
        return paths, scores

    def _divided(self, chains: Chains, tags: Tensor | None) -> tuple[Job, bool]:
        """A job, and whether its kernel is the one for eight rows at a time."""
        B, _, C = chains.emissions.shape
        abreast = self._abreast(B, C)
        return _job(chains, tags, abreast), abreast

    def _run(self, name: str, job: Job, dtype: torch.dtype, abreast: bool) -> None:
        pairs = job.num_tags * job.num_tags
        if abreast:
            _launch(f"{name}_abreast", job, dtype, 20 + pairs // 7)
        else:
            _launch(name, job, dtype, 50 + pairs // 16)

    def log_sweep(self, lattice: Lattice, backwards: bool) -> Tensor:
        """`lattice.log_forward`, or `log_backward`, of potentials in double precision: (B, W, C)."""
        potentials, scores, _, _ = lattice
        B, W, C = potentials.shape
        alpha, nothing = potentials.new_empty(B, W, C), potentials.new_zeros(C)
        chains = Chains(potentials.contiguous(), nothing, nothing, scores.contiguous(), lattice.present(), None, None)
        job = _job(chains, None, abreast=False)
        job.alpha = alpha.data_ptr()
        _launch("log_backward" if backwards else "log_forward", job, torch.float64, 30 * C)
        return alpha


def _job(chains: Chains, tags: Tensor | None, abreast: bool) -> Job:
    """A job with its inputs, for kernels that take a row at a time or eight; what to write is up to the caller."""
    emissions, start, end, transitions, mask, legal, allowed = chains
    B, W, C = emissions.shape
    parts = -(-B // ROWS) if abreast else B
    chunk = -(-parts // CHUNKS) or 1
    row, word, _ = emissions.stride()
    return Job(
        *(0, 0, 0, B, W, C, padded(C), parts, chunk, -(-parts // chunk)),
        *(emissions.data_ptr(), row, word),
        *(_NONE if mask is None else (mask.data_ptr(), *mask.stride())),
        *(_NONE if tags is None else (tags.data_ptr(), *tags.stride())),
        *(start.data_ptr(), end.data_ptr(), transitions.data_ptr()),
        0 if legal is None else legal.data_ptr(),
        0 if allowed is None else allowed.data_ptr(),
    )


_NONE = (0, 0, 0)


def _sums(job: Job) -> int:
    """How many sums the chunks of a job keep."""
    size: int = job.chunks * (job.num_tags + 2) * job.num_tags
    return size


def _gradients(job: Job, chains: Chains) -> Gradients:
    """Room for the gradients, where the job is to write them."""
    emissions, start, end, transitions = map(torch.empty_like if job.rows else torch.zeros_like, chains[:4])
    job.grad_emissions = emissions.data_ptr()
    job.grad_emissions_row, job.grad_emissions_word, _ = emissions.stride()
    job.grad_start, job.grad_end, job.grad_transitions = start.data_ptr(), end.data_ptr(), transitions.data_ptr()
    return Gradients(emissions, start, end, transitions)


def _launch(name: str, job: Job, dtype: torch.dtype, word_ns: int) -> None:
    """Run a kernel that takes about so long for a word."""
    if job.rows:
        # All threads or one: OpenMP ends and makes threads when two regions differ in how many they want.
        several = job.rows * job.words * word_ns > PARALLEL_NS
        threads.run(_kernel(name, dtype), job, threads.thread_limit() if several else 1)


@functools.cache
def _kernel(name: str, dtype: torch.dtype) -> Callable[[int], None]:
    like = {torch.float32: np.float32(0), torch.float64: np.float64(0)}[dtype]
    notice = threading.Timer(NOTICE_AFTER, logger.info, ["Compiling a kernel of the CRF: half a minute, once"])
    notice.daemon = True
    notice.start()  # a kernel that is on the disk already is there sooner
    try:
        return compile_kernel(name, like, _fingerprint()).ctypes
    finally:
        notice.cancel()


@functools.cache
def _fingerprint() -> str:
    """A digest of the sources of the kernels."""
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parent.parent / "chains.py"]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
