"""Optimiser state in shares: the same weights, and a state that any number of processes can go on with."""

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
from tools.interruption import Interrupted
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


@pytest.mark.parametrize("processes", [2, 3])
def test_the_weights_are_those_of_the_whole_optimizer_to_the_last_bit(args: Run, processes: int) -> None:
    whole = on_ranks(processes, weights_after, args)
    shared = on_ranks(processes, weights_after, differently(args, "shared", shard_optimizer=True))
    for weights in shared:
        assert np.array_equal(weights, whole[0])


def interrupted_training(args: Run) -> None:
    with signal_in_step(4), pytest.raises(Interrupted):
        fit(args)


@pytest.mark.parametrize(("first", "then"), [(True, True), (True, False), (False, True)])
def test_a_training_goes_on_from_a_checkpoint_of_either_kind(args: Run, first: bool, then: bool) -> None:
    undisturbed = on_ranks(2, weights_after, differently(args, "undisturbed"))
    stopped = differently(args, "stopped", shard_optimizer=first)
    on_ranks(2, interrupted_training, stopped)
    resumed = on_ranks(2, weights_after, replace(stopped, shard_optimizer=then, resume_from_checkpoint="auto"))
    assert np.array_equal(resumed[0], undisturbed[0])


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
