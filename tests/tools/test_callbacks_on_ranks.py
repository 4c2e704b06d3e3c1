"""Two processes with callbacks and options that reach into a step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.tools.ranks import each_on_ranks
from tests.tools.runs import encoder_without_dropout, fit, replace
from tools.run import Run


@pytest.fixture
def args(crf_args: Run, encoder: Path, tmp_path: Path) -> Run:
    """A short training on two processes without dropout, with weights that move in proportion to the gradient."""
    steady = encoder_without_dropout(encoder, tmp_path / "steady")
    rates: dict[str, Any] = {"learning_rate": 0.1, "crf_learning_rate": 0.1, "adam_epsilon": 1.0, "max_grad_norm": 0.0}
    return replace(
        crf_args, model_name_or_path=str(steady), per_gpu_train_batch_size=4, max_steps=4, logging_steps=2, **rates
    )


def steps_and_weights(args: Run) -> tuple[int, NDArray[np.float32]]:
    steps, _, weights = fit(args)
    return steps, torch.cat([one.flatten() for one in weights.values()]).numpy()


_AT_ONCE = {
    "rdrop_alpha": 2.0,
    "averaging": "ema",
    "layer_decay": 0.5,
    "freeze_layers": 1,
    "freeze_embeddings": True,
    "gradient_checkpointing": True,
    "missing_entities": True,
    "entity_ratio": 0.05,
}
_COMPILED = {"torch_compile": True, "torch_compile_backend": "eager", "averaging": "swa", "swa_start": 0.5}


_ADVERSARY = {"do_adv": True, "adv_type": "pgd", "gradient_accumulation_steps": 2, "per_gpu_train_batch_size": 2}
_STOPPING = {"early_stopping_patience": 1, "max_steps": 20, "learning_rate": 0.0, "crf_learning_rate": 0.0}
_ADAFACTOR = {"optim": "adafactor", "adam_epsilon": 1e-8, "learning_rate": 1e-3, "crf_learning_rate": 1e-3}


@pytest.mark.slow
def test_two_processes_train_as_one_and_as_each_other(args: Run) -> None:
    changes: list[dict[str, Any]] = [
        _AT_ONCE,
        {**_COMPILED, "evaluate_during_training": False},
        _ADVERSARY,
        _STOPPING,
        _ADAFACTOR,
        {**_ADAFACTOR, "shard_optimizer": True},
    ]
    runs = [replace(args, output_dir=f"{args.folder.path} {number}", **one) for number, one in enumerate(changes)]
    results = each_on_ranks(2, steps_and_weights, runs)
    for (steps, weights), (other_steps, other_weights) in results:
        assert steps == other_steps
        assert np.array_equal(weights, other_weights)
    for run, ((together, shared), _) in zip(runs[:2], results[:2], strict=True):
        folder = f"{run.folder.path} alone"
        steps, weights = steps_and_weights(replace(run, output_dir=folder, per_gpu_train_batch_size=8))
        assert together == steps
        assert np.abs(shared - weights).max() < 1e-5
    assert results[3][0][0] == 4  # stopped early
    assert np.array_equal(results[5][0][1], results[4][0][1])  # a shared optimiser is the whole one
