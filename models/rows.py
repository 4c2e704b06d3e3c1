"""The outputs of a linear layer as rows of labels: keeping some, and taking over those of another layer."""

from collections.abc import Sequence

import torch
from torch import nn


def keep_rows(layer: nn.Linear, rows: Sequence[int]) -> None:
    """Keep only these outputs of a layer, in this order."""
    layer.weight, layer.bias = (nn.Parameter(part.detach()[list(rows)]) for part in (layer.weight, layer.bias))
    layer.out_features = len(rows)


@torch.no_grad()
def take_rows(layer: nn.Linear, other: nn.Linear, rows: Sequence[int]) -> None:
    """Copy the outputs of another layer to these ones."""
    layer.weight[list(rows)] = other.weight
    layer.bias[list(rows)] = other.bias
