"""Which backend computes, where numba is missing or broken: in processes of their own, for the choice is kept."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
USE_LAYER = """
import torch
from models.crf import CRF
from models.crf.backend import backend_for
print(type(backend_for(torch.device("cpu"), 3)).__name__)
print(-CRF(3)(torch.zeros(4, 2, 3), torch.zeros(4, 2, dtype=torch.long)).item() > 0)
"""


def run(code: str, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(path)!r}, {str(ROOT)!r}]\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )


def test_plain_torch_computes_without_numba() -> None:
    done = run("sys.modules['numba'] = None" + USE_LAYER)
    assert done.stdout.split() == ["TorchBackend", "True"]
    assert done.stderr == ""


def test_plain_torch_computes_where_numba_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less')")
    done = run(USE_LAYER, tmp_path)
    assert done.stdout.split() == ["TorchBackend", "True"]
    assert "plain torch, which is slower: numba cannot be used: Numba needs NumPy 2.3 or less" in done.stderr


def test_numba_computes_where_it_is_installed() -> None:
    pytest.importorskip("numba")
    assert run(USE_LAYER).stdout.split() == ["NumbaBackend", "True"]
