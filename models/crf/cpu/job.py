"""One call of the library: its arguments, all of them addresses and sizes, in one structure that all threads share."""

import ctypes

from torch import Tensor

from ..chains import Chains

CHUNKS = 32  # parts that a batch is divided into
ROWS_ABREAST = {4: 8, 8: 4}  # by the size of a number

_FIELDS = (
    *("next_chunk", "unserved"),
    *("rows", "words", "tags", "parts", "chunk", "chunks"),
    *("emissions", "emissions_row", "emissions_word", "mask", "mask_row", "mask_word", "gold", "gold_row", "gold_word"),
    *("start", "end", "transitions", "legal", "allowed"),
    *("value", "mode"),
    *("gradient", "gradient_row", "gradient_word", "sums"),
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
        *(0, 0, B, W, C, parts, chunk, -(-parts // chunk)),
        *(emissions.data_ptr(), row, word),
        *(_ABSENT if mask is None else (mask.data_ptr(), *mask.stride())),
        *(_ABSENT if tags is None else (tags.data_ptr(), *tags.stride())),
        *(start.data_ptr(), end.data_ptr(), transitions.data_ptr()),
        0 if legal is None else legal.data_ptr(),
        0 if allowed is None else allowed.data_ptr(),
    )
