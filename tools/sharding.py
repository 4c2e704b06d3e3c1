"""Optimiser state sharding: each process updates its share of the weights and broadcasts them (ZeRO stage 1)."""

from inspect import signature
from typing import Any

from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from tools.distributed import is_main, world_size


class ShardedOptimizer(ZeroRedundancyOptimizer):
    """Wraps an optimiser and shards its state over the processes (ZeRO stage 1; Rajbhandari et al. 2020).

    Updates equal those of the wrapped optimiser. The state is saved and loaded as a whole, in the format of the wrapped
    optimiser, so that training can resume with any number of processes, sharded or not.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        accepted = signature(type(optimizer)).parameters  # AdamW's defaults have keys that it does not accept
        options = {name: value for name, value in optimizer.defaults.items() if name in accepted}
        super().__init__(optimizer.param_groups, type(optimizer), **options)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state on rank 0, and an empty dict on the others. All ranks must call it."""
        self.consolidate_state_dict(to=0)
        return super().state_dict() if is_main() else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load this process's share of a whole state."""
        super().load_state_dict({**state_dict, "state": dict(state_dict["state"])})  # it clears other shares
        # Reload: it leaves the step counts on the CPU, but fused optimisers need them on the GPU.
        self.optim.load_state_dict(self.optim.state_dict())


def sharded(optimizer: Optimizer) -> Optimizer:
    """Shard the state of an optimiser if there are several processes."""
    return ShardedOptimizer(optimizer) if world_size() > 1 else optimizer
