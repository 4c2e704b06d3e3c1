"""The CPU backend: compiled C++ (`crf.cpp`), and plain torch for the few rows that its arithmetic cannot serve."""

import ctypes

import torch
from torch import Tensor

from ..chains import LOG_SPACE, NO_PATH, SCALED, Chains, Gradients, RowGradients, State, raise_for_rows
from ..lattice import Lattice
from ..torch_backend import TorchBackend
from . import library, threads
from .job import Job, job_for

PARALLEL_NS = 80_000  # work that is worth several threads
# What a word takes by itself, and for each pair of tags, in nanoseconds on one core.
COSTS = {"sweep": (15, 0.09), "decode": (5, 0.035), "log_sweep": (100, 2)}


class CppBackend:
    """See `Backend`. A row goes forward and backward at once, while it is in the cache: nothing is kept but gradients.

    Raises:
        ImportError: the library cannot be built.
    """

    def __init__(self) -> None:
        self._functions = {
            (name, size): getattr(library.load(), f"crf_{name}_float{8 * size}")
            for name, size in (("sweep", 4), ("sweep", 8), ("decode", 4), ("decode", 8), ("log_sweep", 8))
        }
        for function in self._functions.values():
            function.argtypes, function.restype = [ctypes.c_void_p], None
        self._torch = TorchBackend()

    def forward(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, State]:
        value, mode = self._sweep(chains, tags, None)
        return value, State(value.new_zeros(()).expand(chains.emissions.shape), mode)

    def backward(self, grad: Tensor, chains: Chains, tags: Tensor | None, state: State) -> Gradients:
        return self.with_gradients(chains, tags)[1].weighted(grad)

    def with_gradients(self, chains: Chains, tags: Tensor | None) -> tuple[Tensor, RowGradients]:
        B, _, C = chains.emissions.shape
        sums = chains.emissions.new_empty(B, C + 2, C, dtype=torch.float64)
        gradients = RowGradients(torch.empty_like(chains.emissions), sums)
        return self._sweep(chains, tags, gradients)[0], gradients

    def decode(self, chains: Chains, padding: int) -> tuple[Tensor, Tensor]:
        B, W, _ = chains.emissions.shape
        paths, scores = chains.emissions.new_empty(B, W, dtype=torch.int64), chains.emissions.new_empty(B)
        job = job_for(chains, None)
        job.value, job.paths, job.padding = scores.data_ptr(), paths.data_ptr(), padding
        self._run("decode", job, chains)
        if job.unserved:
            raise_for_rows(torch.where(scores.isneginf(), NO_PATH, SCALED))
        return paths, scores

    def log_sweep(self, lattice: Lattice, backwards: bool) -> Tensor:
        """`lattice.log_forward`, or `log_backward`, of potentials in double precision: (B, W, C)."""
        potentials, scores = lattice.potentials.contiguous(), lattice.scores.contiguous()
        logs, nothing = torch.empty_like(potentials), potentials.new_zeros(potentials.size(2))
        chains = Chains(potentials, nothing, nothing, scores, lattice.present(), None, None)
        job = job_for(chains, None)
        job.logs, job.backwards = logs.data_ptr(), backwards
        self._run("log_sweep", job, chains)
        return logs

    def _run(self, name: str, job: Job, chains: Chains) -> None:
        if job.rows:
            # All threads or one: OpenMP ends and makes threads when two regions differ in how many they want.
            word, pair = COSTS[name]
            several = job.rows * job.words * (word + job.tags * job.tags * pair) > PARALLEL_NS
            function = self._functions[name, chains.emissions.element_size()]
            threads.run(function, job, threads.thread_limit() if several else 1)

    def _sweep(self, chains: Chains, tags: Tensor | None, gradients: RowGradients | None) -> tuple[Tensor, Tensor]:
        """The value of each row (B,) and how it was computed (B,); writes the gradients if there is room for them."""
        B = chains.emissions.size(0)
        value, mode = chains.emissions.new_empty(B), chains.emissions.new_empty(B, dtype=torch.uint8)
        job = job_for(chains, tags)
        job.value, job.mode = value.data_ptr(), mode.data_ptr()
        if gradients is not None:
            job.gradient, job.sums = gradients.emissions.data_ptr(), gradients.sums.data_ptr()
            job.gradient_row, job.gradient_word, _ = gradients.emissions.stride()
        self._run("sweep", job, chains)
        if not job.unserved:
            return value, mode
        rows = (mode == LOG_SPACE).nonzero()[:, 0]
        if rows.numel():
            exact, tags = _in_double(chains, rows), _rows(tags, rows)
            found, state = self._torch.evaluate(exact, tags)
            value[rows] = found.to(value.dtype)
            mode[rows] = torch.where(state.mode == SCALED, LOG_SPACE, state.mode).to(mode.dtype)
        raise_for_rows(mode)
        if rows.numel() and gradients is not None:
            emissions, gradients.sums[rows] = self._torch.row_gradients(exact, tags, state)
            gradients.emissions[rows] = emissions.to(value.dtype)
        return value, mode


def _rows(tensor: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if tensor is None else tensor[rows]


def _in_double(chains: Chains, rows: Tensor) -> Chains:
    """Some rows of a batch in double precision."""
    emissions, start, end, transitions, mask, legal, allowed = chains
    scores = (emissions[rows].double(), start.double(), end.double(), transitions.double())
    return Chains(*scores, _rows(mask, rows), legal, _rows(allowed, rows))
