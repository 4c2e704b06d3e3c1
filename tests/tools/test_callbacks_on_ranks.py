"""Two processes with callbacks and options that reach into a step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.tools.ranks import on_ranks
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
}
_COMPILED = {"torch_compile": True, "torch_compile_backend": "eager", "averaging": "swa", "swa_start": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [_AT_ONCE, {**_COMPILED, "evaluate_during_training": False}])
def test_two_processes_train_as_one(args: Run, changes: dict[str, Any]) -> None:
    args = replace(args, **changes)
    first, second = on_ranks(2, steps_and_weights, args)
    folder = f"{args.folder.path} alone"
    steps, weights = steps_and_weights(replace(args, output_dir=folder, per_gpu_train_batch_size=8))
    assert first[0] == second[0] == steps
    assert np.array_equal(first[1], second[1])
    assert np.abs(first[1] - weights).max() < 1e-5


@pytest.mark.slow
def test_an_adversary_disturbs_each_process_by_its_own_gradients(args: Run) -> None:
    args = replace(args, do_adv=True, adv_type="pgd", gradient_accumulation_steps=2, per_gpu_train_batch_size=2)
    first, second = on_ranks(2, steps_and_weights, args)
    assert np.array_equal(first[1], second[1])


def test_all_processes_stop_at_the_same_step(args: Run) -> None:
    args = replace(args, early_stopping_patience=1, max_steps=20, learning_rate=0.0, crf_learning_rate=0.0)
    first, second = on_ranks(2, steps_and_weights, args)
    assert first[0] == second[0] == 4


def test_an_adafactor_can_be_shared(args: Run) -> None:
    args = replace(args, optim="adafactor", adam_epsilon=1e-8, learning_rate=1e-3, crf_learning_rate=1e-3)
    whole = on_ranks(2, steps_and_weights, args)
    shared = on_ranks(
        2, steps_and_weights, replace(args, output_dir=f"{args.folder.path} shared", shard_optimizer=True)
    )
    assert np.array_equal(shared[0][1], whole[0][1])
    assert np.array_equal(shared[1][1], whole[0][1])
