"""The layer by itself in another project, as docs/crf.md says that it may be taken there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAYER = Path(__file__).parents[3] / "models" / "crf"
USE_LAYER = """
import sys
import torch
from {name} import CRF
from {name}.backend import backend_for
emissions, tags = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)
crf = CRF(4, batch_first=True)
for parameter in crf.parameters():
    torch.nn.init.zeros_(parameter)
print(type(backend_for(emissions.device, 4)).__module__, round((-crf(emissions, tags)).exp().item()))
print("models" in sys.modules and "models" != {name!r}.partition(".")[0])
"""


@pytest.mark.parametrize("name", ["models.crf", "fast_crf", "ours.layers.crf"])
def test_the_folder_works_where_it_was_copied_to(name: str, tmp_path: Path) -> None:
    shutil.copytree(LAYER, tmp_path / name.replace(".", "/"), ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", USE_LAYER.format(name=name)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split() == [f"{name}.cpu", str(4**6), "False"]
