"""Compile the Triton kernels for GPUs that need not be there: argument is the compute capability, as 80 or 90."""

import sys

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from models.crf.gpu import warps
from models.crf.gpu.kernels import backward_kernel, decode_kernel, forward_kernel

TYPES = {
    **dict.fromkeys(["emissions", "start", "end", "transitions", "value_out", "alpha_out", "alpha_in"], "*fp32"),
    **dict.fromkeys(["grad_in", "grad_emissions", "sums", "best"], "*fp32"),
    **dict.fromkeys(["mask", "legal", "allowed"], "*i1"),
    **dict.fromkeys(["tags", "fault", "paths"], "*i64"),
    **dict.fromkeys(["mode_out", "mode_in"], "*u8"),
    "smallest": "fp32",
}
FLAGS = {"HAS_MASK": True, "HAS_TAGS": True, "HAS_LEGAL": True, "HAS_ALLOWED": True}


def main(capability: int) -> None:
    for C, block in ((9, 16), (40, 64), (256, 256)):
        for kernel in (forward_kernel, backward_kernel, decode_kernel):
            names = kernel.arg_names
            constants = {name: value for name, value in {**FLAGS, "C": C, "BLOCK": block}.items() if name in names}
            signature = {name: "constexpr" if name in constants else TYPES.get(name, "i32") for name in names}
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            binary = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps(block)})
            print(kernel.__name__, C, len(binary.asm["cubin"]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
