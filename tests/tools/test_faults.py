"""A run that is killed without warning, at any instant, leaves a checkpoint, and ends as if nothing had happened."""

import json
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import write_corpus
from tests.tools.runs import options_of_run, start_script

KILLS = 8  # a quarter of a run passes before its first checkpoint


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills and forks as Unix does")
def test_kills_at_random_change_nothing(encoder: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 60, "dev": 20, "test": 4})
    options = options_of_run(encoder, corpus, tmp_path)
    del options["output_dir"]
    options |= {"do_train": True, "from_scratch": True, "max_steps": 60, "save_steps": 3, "save_total_limit": 2}
    seed = random.randrange(2**32)
    done = start_script(*("-m", "tests.tools.killer", str(KILLS), str(seed), str(tmp_path), "run_ner_crf"), **options)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= KILLS
    assert any(found["steps"]), "no kill came late enough to leave a checkpoint"
    assert "damaged" not in done.stderr
    undisturbed = tmp_path / "undisturbed"
    for name in found["folders"]:
        folder = tmp_path / name
        assert sorted(path.name for path in folder.glob("checkpoint-*")) == [
            "checkpoint-57",
            "checkpoint-60",
            "checkpoint-best",
        ]
        for weights in ("model.safetensors", "checkpoint-60/model.safetensors", "checkpoint-best/model.safetensors"):
            expected, ended = load_file(undisturbed / weights), load_file(folder / weights)
            assert expected.keys() == ended.keys()
            assert all(torch.equal(expected[key], ended[key]) for key in expected), f"seed {seed}, {name}/{weights}"
