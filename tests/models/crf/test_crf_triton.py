"""Run `triton_cases.py` in Triton's CPU interpreter, and on a GPU where there is one; compile for GPUs without one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def run(*command: str, interpret: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": interpret, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def cases(interpret: str) -> None:
    path = Path(__file__).with_name("triton_cases.py")
    run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path), interpret=interpret)


def test_interpreted() -> None:
    cases("1")


@pytest.mark.slow
def test_compiles_for_gpus() -> None:
    run(str(Path(__file__).with_name("compile_for_gpu.py")), interpret="0")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    cases("0")
