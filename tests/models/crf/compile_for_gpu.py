"""Compile the Triton kernels for GPUs that need not be there, and check what the assembler says of them.

Prints a table: instructions and shuffles in the kernel, registers per thread, and bytes of registers spilled to memory.
"""

import math
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource, compile

from models.crf.gpu import warps
from models.crf.gpu.log_space import log_backward_kernel, log_forward_kernel
from models.crf.gpu.scaled import backward_kernel, forward_kernel
from models.crf.gpu.viterbi import decode_kernel

SCORES = ["emissions", "start", "end", "transitions", "value_out", "alpha_out", "alpha_in", "best", "turned"]
TYPES = {
    **dict.fromkeys(["mask", "legal", "turned_legal", "allowed"], "*i1"),
    **dict.fromkeys(["tags", "fault", "paths"], "*i64"),
    **dict.fromkeys(["mode_out", "mode_in"], "*u8"),
    **dict.fromkeys(["sums", "weights_out", "left_out", "right_out"], "*fp64"),
}
FLAGS = {"HAS_MASK": True, "HAS_TAGS": True, "HAS_LEGAL": True, "HAS_ALLOWED": False}
DTYPES = {torch.float32: "*fp32", torch.float64: "*fp64"}
FAST = [forward_kernel, backward_kernel, decode_kernel]
KERNELS = [*FAST, log_forward_kernel, log_backward_kernel]
# Compute capability, block of tags, type, kernels; large blocks take the assembler long.
BINARIES: list[tuple[int, int, torch.dtype, list[Any]]] = [
    (80, 16, torch.float32, KERNELS),
    (80, 16, torch.float64, KERNELS),
    (90, 32, torch.float32, FAST),
    (90, 64, torch.float32, FAST),
    (90, 256, torch.float32, FAST[:2]),
]


def main() -> None:
    for capability, block, dtype, kernels in BINARIES:
        limits = torch.finfo(dtype)
        smallest = math.sqrt(limits.tiny)
        types = {**TYPES, **dict.fromkeys([*SCORES, "grad_in", "grad_emissions"], DTYPES[dtype])}
        for kernel in kernels:
            names = kernel.arg_names
            given = {**FLAGS, "BLOCK": block, "SMALLEST": smallest, "RATIO": 64 / limits.eps}
            constants = {name: value for name, value in given.items() if name in names}
            signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            binary = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps(block)})
            # A launch compares the globals that a kernel uses with those at compilation: NaN would always differ.
            for (name, _), (value, module) in kernel.used_global_vals.items():
                assert module[name] == value, f"{kernel.__name__}: the global {name} is not equal to itself"
            if kernel is forward_kernel and dtype == torch.float64:
                # A double that the kernel compares with must not pass through single precision, which has it as 0.
                assert repr(smallest).upper() in binary.asm["ttir"]
            shared = binary.metadata.shared
            registers, spilled = assembled(binary.asm["ptx"], capability)
            shuffles = binary.asm["ptx"].count("shfl.sync")
            instructions = len(re.findall(r"^\s+[@a-z].*;$", binary.asm["ptx"], re.MULTILINE))
            print(f"{kernel.__name__:20} sm_{capability} {block:4} {str(dtype)[6:]} {instructions:6} instructions "
                  f"{shuffles:4} shuffles {registers:4} registers {spilled:5} bytes spilled "
                  f"{shared:7} bytes shared", flush=True)  # fmt: skip
            assert shared <= 48 * 1024, f"{kernel.__name__} needs {shared} bytes of shared memory"  # all GPUs have them
            if kernel in FAST and block <= 64:
                assert spilled == 0, f"{kernel.__name__} spills {spilled} bytes of registers"


def assembled(ptx: str, capability: int) -> tuple[int, int]:
    """Registers per thread, and bytes that are spilled, as the assembler reports them."""
    architecture = f"sm_{capability}a" if f"sm_{capability}a" in ptx else f"sm_{capability}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        command = [get_ptxas(capability).path, "-v", f"-arch={architecture}", path, "-o", path.with_suffix(".cubin")]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = sum(int(found) for found in re.findall(r"(\d+) bytes spill stores", report))
    return max(int(found) for found in re.findall(r"Used (\d+) registers", report)), spilled


if __name__ == "__main__":
    print("Triton", triton.__version__)
    main()
