"""Parameters and representation of pytorch-crf's layer: that class itself where it is installed, for code that asks."""

import torch
from torch import nn

try:
    import torchcrf

    Base = torchcrf.CRF
except ImportError:

    class Base(nn.Module):  # type: ignore[no-redef]
        """The same without pytorch-crf."""

        def __init__(self, num_tags: int, batch_first: bool = False) -> None:
            if num_tags <= 0:
                raise ValueError(f"invalid number of tags: {num_tags}")
            super().__init__()
            self.num_tags, self.batch_first = num_tags, batch_first
            self.start_transitions = nn.Parameter(torch.empty(num_tags))
            self.end_transitions = nn.Parameter(torch.empty(num_tags))
            self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
            self.reset_parameters()

        def reset_parameters(self) -> None:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -0.1, 0.1)

        def __repr__(self) -> str:
            return f"{type(self).__name__}(num_tags={self.num_tags})"


__all__ = ["Base"]
