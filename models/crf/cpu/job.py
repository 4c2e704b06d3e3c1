"""One call of the library: its arguments, all of them addresses and sizes, in one structure that all threads share."""

import ctypes

import torch
from torch import Tensor

from ..chains import Chains, Gradients

CHUNKS = 32  # parts that a batch is divided into; more would only cost memory for their sums
ROWS_ABREAST = {4: 8, 8: 4}  # by the size of a number

_FIELDS = (
    *("next_chunk", "chunks_done", "unserved"),
    *("rows", "words", "tags", "parts", "chunk", "chunks"),
    *("emissions", "emissions_row", "emissions_word", "mask", "mask_row", "mask_word", "gold", "gold_row", "gold_word"),
    *("start", "end", "transitions", "legal", "allowed"),
    *("value", "mode", "total"),
    *("grad", "grad_row", "grad_emissions", "grad_emissions_row", "grad_emissions_word"),
    *("sums", "grad_start", "grad_end", "grad_transitions"),
    *("paths", "padding", "backwards", "logs"),
)
_ABSENT = (0, 0, 0)


class Job(ctypes.Structure):
    """`Job` of crf.cpp, zero where nothing was written. Addresses are not typed: to write them takes no time then."""

    _fields_ = [(name, ctypes.c_int64) for name in _FIELDS]


def job_for(chains: Chains, tags: Tensor | None) -> Job:
    """A job with its inputs; what to compute and where to write it is up to the caller."""
    emissions, start, end, transitions, mask, legal, allowed = chains
    B, W, C = emissions.shape
    parts = -(-B // ROWS_ABREAST[emissions.element_size()])
    chunk = -(-parts // CHUNKS) or 1
    row, word, _ = emissions.stride()
    return Job(
        *(0, 0, 0, B, W, C, parts, chunk, -(-parts // chunk)),
        *(emissions.data_ptr(), row, word),
        *(_ABSENT if mask is None else (mask.data_ptr(), *mask.stride())),
        *(_ABSENT if tags is None else (tags.data_ptr(), *tags.stride())),
        *(start.data_ptr(), end.data_ptr(), transitions.data_ptr()),
        0 if legal is None else legal.data_ptr(),
        0 if allowed is None else allowed.data_ptr(),
    )


def room_for_gradients(job: Job, chains: Chains) -> Gradients:
    """Room for the gradients, where the job is to write them."""
    gradients = Gradients(*map(torch.empty_like if job.rows else torch.zeros_like, chains[:4]))
    job.grad_emissions, job.grad_start, job.grad_end, job.grad_transitions = map(Tensor.data_ptr, gradients)
    job.grad_emissions_row, job.grad_emissions_word, _ = gradients.emissions.stride()
    return gradients


def size_of_sums(job: Job) -> int:
    """How many numbers the chunks of a job sum up."""
    size: int = job.chunks * (job.tags + 2) * job.tags
    return size
