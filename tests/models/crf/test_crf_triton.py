"""Run `triton_cases.py` in Triton's CPU interpreter, and on a GPU where there is one; compile for GPUs without one."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.crf import CRF
from models.crf.backend import use_backend

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


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")(test))


def batch(B: int, W: int, C: int, device: str = "cuda") -> tuple[CRF, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(B * W * C)
    crf = CRF(C, batch_first=True).to(device)
    mask = torch.arange(W) < torch.randint(1, W + 1, (B, 1))
    emissions = torch.randn(B, W, C, device=device, requires_grad=True)
    return crf, emissions, torch.randint(0, C, (B, W), device=device), mask.to(device)


def step(crf: CRF, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """The loss and its gradients."""
    loss = -crf(emissions, tags, mask)
    return [loss.detach(), *torch.autograd.grad(loss, [emissions, *crf.parameters()])]


@on_gpu
def test_on_a_gpu() -> None:
    cases("0")


@on_gpu
def test_without_a_c_compiler_it_falls_back_with_a_warning(tmp_path: Path) -> None:
    """As in an image without gcc."""
    code = """
import logging, sys
logging.basicConfig(stream=sys.stdout)
import torch
from models.crf import CRF
crf = CRF(3, batch_first=True).cuda()
crf(torch.zeros(2, 4, 3).cuda(), torch.zeros(2, 4, dtype=torch.long).cuda()).backward()
print("done")
"""
    without_compilers = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    environment = {
        **without_compilers,
        "PATH": str(tmp_path),
        "TRITON_HOME": str(tmp_path),
        "TRITON_CACHE_DIR": str(tmp_path),
    }
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["done"], done.stderr[-3000:]
    assert "plain torch" in done.stdout


@on_gpu
def test_batches_of_many_lengths_share_one_binary() -> None:
    from models.crf.gpu.scaled import forward_kernel

    def variants() -> int:
        return sum(len(cache[0]) for cache in forward_kernel.device_caches.values())

    before = variants()
    for W in range(20, 141):
        step(*batch(2 + W % 3, W, 7 + W % 5))
    assert variants() - before <= 3


@on_gpu
@pytest.mark.parametrize("C", [25, 65, 128, 200, 256])
def test_many_tags_agree_with_torch(C: int) -> None:
    given = batch(4, 30, C)
    results = []
    for backend in ("triton", "torch"):
        with use_backend(backend):
            results.append((step(*given), given[0].decode(given[1], given[3])))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@on_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_on_a_second_device() -> None:
    for result, other in zip(step(*batch(4, 30, 9)), step(*batch(4, 30, 9, "cuda:1")), strict=True):
        torch.testing.assert_close(result.cpu(), other.cpu())


@on_gpu
def test_on_a_side_stream_and_in_a_graph() -> None:
    given = batch(8, 40, 9)
    expected = step(*given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        on_the_side = step(*given)
    torch.cuda.current_stream().wait_stream(stream)
    torch.testing.assert_close(on_the_side, expected, rtol=0, atol=0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(*given)
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(captured, expected, rtol=0, atol=0)


@on_gpu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="no compute-sanitizer")
def test_the_sanitizer_finds_no_fault() -> None:
    code = "from tests.models.crf.test_crf_triton import *; g = batch(3, 9, 5); step(*g); g[0].decode(g[1], g[3])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = ["compute-sanitizer", "--error-exitcode", "9", sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
