"""Optimiser state in shares: the same weights, and a state that any number of processes can go on with."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from tests.tools.interrupted import signal_in_step
from tests.tools.ranks import on_ranks
from tests.tools.runs import fit, replace
from tools.distributed import Interrupted, run_on_main
from tools.run import Run
from tools.sharding import ShardedOptimizer, sharded


def weights_after(args: Run) -> NDArray[np.float32]:
    _, _, weights = fit(args)
    return torch.cat([one.flatten() for one in weights.values()]).numpy()


@pytest.fixture
def args(crf_args: Run) -> Run:
    """A short training by two, with dropout, clipping and evaluation of which not all have the same share."""
    return replace(crf_args, per_gpu_train_batch_size=4, max_steps=6, logging_steps=3, max_grad_norm=0.5)


def differently(args: Run, name: str, **changes: Any) -> Run:
    return replace(args, output_dir=f"{args.folder.path}-{name}", **changes)


def weights_of_all(runs: list[Run]) -> list[NDArray[np.float32]]:
    return [weights_after(run) for run in runs]


def test_three_processes_have_the_weights_of_the_whole_optimizer_to_the_last_bit(args: Run) -> None:
    shared = differently(args, "shared", shard_optimizer=True)
    for whole_weights, shared_weights in on_ranks(3, weights_of_all, [args, shared]):
        assert np.array_equal(shared_weights, whole_weights)


def interrupted(run: Run, name: str, shard_optimizer: bool) -> Path:
    """The folder of a training that is interrupted in its fourth step."""
    run = differently(run, name, shard_optimizer=shard_optimizer)
    with signal_in_step(4), pytest.raises(Interrupted):
        fit(run)
    return run.folder.path


def resumed(run: Run, folder: Path, shard_optimizer: bool) -> NDArray[np.float32]:
    """The weights after a copy of an interrupted training has gone on."""
    copy = folder.with_name(f"{folder.name} on {shard_optimizer}")
    run_on_main(lambda: shutil.copytree(folder, copy))
    changes = {"shard_optimizer": shard_optimizer, "resume_from_checkpoint": "auto"}
    return weights_after(replace(run, output_dir=str(copy), **changes))


def trainings(run: Run) -> list[NDArray[np.float32]]:
    """The weights of one optimiser, of a shared one, and of trainings that go on from a checkpoint of either kind."""
    whole = weights_after(differently(run, "whole"))
    shared = weights_after(differently(run, "shared", shard_optimizer=True))
    stopped = interrupted(run, "stopped", True)
    stopped_whole = interrupted(run, "stopped whole", False)
    return [whole, shared, resumed(run, stopped, True), resumed(run, stopped, False), resumed(run, stopped_whole, True)]


def test_two_processes_have_the_same_weights_and_go_on_from_a_checkpoint_of_either_kind(args: Run) -> None:
    for whole, *others in on_ranks(2, trainings, args):
        assert [np.array_equal(weights, whole) for weights in others] == [True] * 4


def stepped(optimizer: Optimizer) -> Optimizer:
    """The optimiser after a step on constant gradients."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    return optimizer


def new_optimizer(kind: str) -> Optimizer:
    parameters = [nn.Parameter(torch.ones(size)) for size in (5, 3, 2)]
    groups: list[dict[str, Any]] = [{"params": parameters[:1], "lr": 0.5, "name": "first"}, {"params": parameters[1:]}]
    return AdamW(groups, lr=0.1, fused=True) if kind == "adam" else SGD(groups, lr=0.1, momentum=0.9)


def states(kind: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The whole optimiser's state, what the shared one says that it is, and how many weights it is kept for here."""
    whole, shared = stepped(new_optimizer(kind)), stepped(sharded(new_optimizer(kind)))
    assert isinstance(shared, ShardedOptimizer)
    return _plain(whole.state_dict()), _plain(shared.state_dict()), sum(one.numel() for one in shared.optim.state)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """With lists for tensors, to be sent and compared."""
    found = {key: {name: value.tolist() for name, value in one.items()} for key, one in state.get("state", {}).items()}
    return {**state, "state": found}


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_each_keeps_a_share_and_the_main_process_collects_the_whole(kind: str) -> None:
    (whole, collected, kept), (_, elsewhere, kept_elsewhere) = on_ranks(2, states, kind)
    assert collected == whole
    assert elsewhere["state"] == {}
    assert (kept, kept_elsewhere) == (5, 5)  # of ten


def test_one_process_has_nothing_to_share() -> None:
    optimizer = new_optimizer("adam")
    assert sharded(optimizer) is optimizer
