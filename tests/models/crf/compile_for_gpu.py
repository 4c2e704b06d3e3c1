"""Compile the Triton kernels for GPUs that need not be there.

Each capability has shapes of its own, since the assembler takes seconds for the large ones.
"""

import math

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from models.crf.gpu import warps
from models.crf.gpu.kernels import backward_kernel, forward_kernel
from models.crf.gpu.viterbi import decode_kernel

SCORES = ["emissions", "start", "end", "transitions", "value_out", "alpha_out", "alpha_in", "best"]
TYPES = {
    **dict.fromkeys(["mask", "legal", "allowed"], "*i1"),
    **dict.fromkeys(["tags", "fault", "paths"], "*i64"),
    **dict.fromkeys(["mode_out", "mode_in"], "*u8"),
    "sums": "*fp64",
}
FLAGS = {"HAS_MASK": True, "HAS_TAGS": True, "HAS_LEGAL": True, "HAS_ALLOWED": True}
DTYPES = {torch.float32: "*fp32", torch.float64: "*fp64"}


BINARIES = (  # compute capability, tags, block, type
    (80, 9, 16, torch.float32),
    (80, 9, 16, torch.float64),
    (90, 9, 16, torch.float64),
    (90, 40, 64, torch.float32),
    (90, 256, 256, torch.float32),
)


def main() -> None:
    for capability, C, block, dtype in BINARIES:
        smallest = math.sqrt(torch.finfo(dtype).tiny)
        types = {**TYPES, **dict.fromkeys([*SCORES, "grad_in", "grad_emissions"], DTYPES[dtype])}
        for kernel in (forward_kernel, backward_kernel, decode_kernel):
            names = kernel.arg_names
            given = {**FLAGS, "C": C, "BLOCK": block, "SMALLEST": smallest}
            constants = {name: value for name, value in given.items() if name in names}
            signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            binary = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps(block)})
            print(kernel.__name__, capability, C, dtype, len(binary.asm["cubin"]))
            if kernel is forward_kernel and dtype == torch.float64:
                # A double that the kernel is to compare with must not pass through single precision, which has it as 0.
                assert repr(smallest).upper() in binary.asm["ttir"]


if __name__ == "__main__":
    main()
