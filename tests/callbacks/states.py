"""A training state to call callbacks with."""

from typing import Any

import torch
from torch import nn

from callbacks import TrainState


class TinyModel(nn.Module):
    """An embedding with an encoder's name, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.word_embeddings = nn.Embedding(5, 3)
        self.classifier = nn.Linear(3, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.classifier(self.word_embeddings(ids)).sin().sum()
        return states


def state_of(model: nn.Module | None = None, **changes: Any) -> TrainState:
    """A run of 40 steps, 10 per epoch."""
    model = model or TinyModel()
    parameters = dict(model.named_parameters())
    groups = [
        {"name": "encoder/decayed", "params": [parameters["word_embeddings.weight"]], "lr": 1e-3},
        {"name": "head/decayed", "params": [parameters["classifier.weight"]], "lr": 1e-2},
        {"name": "head/not decayed", "params": [parameters["classifier.bias"]], "lr": 1e-2},
    ]
    return TrainState(model, torch.optim.SGD(groups), **{"total_steps": 40, "steps_per_epoch": 10, **changes})
