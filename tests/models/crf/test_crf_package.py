"""The layer as a package of its own, built and installed as a user would, without the rest of the project."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.crf import CRF

LAYER = Path(__file__).parents[3] / "models" / "crf"
CODE = """
import sys, torch
sys.modules["torchcrf"] = None  # as if pytorch-crf were not installed
import chaincrf
from chaincrf import CRF
crf = CRF(3, batch_first=True)
state, emissions, tags = torch.load("given.pt")
crf.load_state_dict(state)
loss = -crf(emissions, tags)
loss.backward()
torch.save([loss.detach(), crf.transitions.grad, crf.decode(emissions), repr(crf)], "found.pt")
print([module for module in sys.modules if module.split(".")[0] in ("models", "common", "transformers", "numba")])
print(chaincrf.__file__)
"""


@pytest.mark.slow
def test_the_package_is_built_and_used_alone(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(LAYER, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((site / "chaincrf" / "cpu").glob("crf-*.so"))

    torch.manual_seed(0)
    crf, emissions, tags = CRF(3, batch_first=True), torch.randn(4, 6, 3), torch.randint(0, 3, (4, 6))
    loss = -crf(emissions, tags)
    loss.backward()
    torch.save([crf.state_dict(), emissions, tags], tmp_path / "given.pt")
    environment = {"PYTHONPATH": str(site), "BERT_CRF_CACHE": str(tmp_path / "cache"), "PATH": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["[]", str(site / "chaincrf" / "__init__.py")]
    assert "plain torch" not in done.stderr
    expected = [loss.detach(), crf.transitions.grad, crf.decode(emissions), "CRF(num_tags=3)"]
    torch.testing.assert_close(torch.load(tmp_path / "found.pt")[:3], expected[:3], rtol=0, atol=0)
    assert torch.load(tmp_path / "found.pt")[3] == expected[3]
    assert not (tmp_path / "cache").exists()
