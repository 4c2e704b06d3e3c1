"""pytorch-crf's layer, in float32 inside any autocast and with its best paths as one tensor."""

from typing import Any

import torch
import torchcrf
from torch import Tensor


class CRF(torchcrf.CRF):  # type: ignore[misc]
    """See ``torchcrf.CRF`` for parameters and signatures."""

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None, reduction: str = "sum") -> Tensor:
        """Log-likelihood of tags; what stands at masked positions, -100 for instance, is not looked at."""
        if mask is not None:
            tags = tags.masked_fill(~mask.bool(), 0)
        with torch.autocast(emissions.device.type, enabled=False):
            return super().forward(emissions.float(), tags, mask, reduction)

    def best_tags(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Viterbi's paths, padded with 0: ``(B, W, C), (B, W) -> (B, W)``; ``batch_first`` layers only."""
        paths: list[list[Any]] = self.decode(emissions.float(), mask)
        best = torch.zeros(mask.shape, dtype=torch.long, device=emissions.device)
        for row, path in enumerate(paths):
            best[row, : len(path)] = torch.tensor(path, device=best.device)
        return best
