"""Optimiser state in shares: each process keeps and updates its part of the weights, and sends them to the others."""

from inspect import signature
from typing import Any

from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from tools.distributed import is_main, world_size


class ShardedOptimizer(ZeroRedundancyOptimizer):
    """Another optimiser's groups, with its state spread over the processes (ZeRO stage 1; Rajbhandari et al. 2020).

    The weights after a step are those that the other one would give. Its state is read and written as a whole, in the
    other one's form, so a checkpoint goes on with any number of processes, sharded or not.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        accepted = signature(type(optimizer)).parameters  # AdamW's defaults say that it is an Adam, too
        options = {name: value for name, value in optimizer.defaults.items() if name in accepted}
        super().__init__(optimizer.param_groups, type(optimizer), **options)

    def state_dict(self) -> dict[str, Any]:
        """The whole state on rank 0, nothing on the others; all must call it."""
        self.consolidate_state_dict(to=0)
        return super().state_dict() if is_main() else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes this process's share of a whole state."""
        super().load_state_dict({**state_dict, "state": dict(state_dict["state"])})  # it empties what is not its own
        # It leaves the count of steps on the CPU, where a fused optimiser on a GPU does not look for it.
        self.optim.load_state_dict(self.optim.state_dict())


def sharded(optimizer: Optimizer) -> Optimizer:
    """The optimiser with its state in shares, where there are processes to share it."""
    return ShardedOptimizer(optimizer) if world_size() > 1 else optimizer
