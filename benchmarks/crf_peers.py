"""Other CRF layers that `benchmarks.crf` compares with, each doing the same work; those not installed are skipped.

pip install pytorch-crf torch-struct
pip install --no-deps edsnlp                       # its layer is a file that needs torch and numpy alone
pip install --no-deps --ignore-requires-python pyt-crf    # asks for Python 3.12, but runs on 3.11
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STRUCT_LIMIT = 2**24  # B * W * C * C beyond which torch-struct takes tens of gigabytes


@dataclass
class Batch:
    emissions: Tensor  # (B, W, C)
    tags: Tensor  # (B, W)
    mask: Tensor  # (B, W)

    @classmethod
    def ragged(cls, B: int, W: int, C: int, device: torch.device) -> "Batch":
        """Rows of W / 4 to W words, at least one of them with W."""
        torch.manual_seed(0)
        lengths = torch.randint(max(W // 4, 1), W + 1, (B,))
        lengths[0] = W
        mask = torch.arange(W) < lengths[:, None]  # (B, W)
        emissions, tags = 2 * torch.randn(B, W, C), torch.randint(0, C, (B, W))
        return cls(emissions.to(device).requires_grad_(), tags.to(device), mask.to(device))

    @cached_property
    def one_hot(self) -> Tensor:
        """The tags as EDS-NLP prepares them ahead of training: (B, W, C) bool."""
        return nn.functional.one_hot(self.tags, self.emissions.size(2)).bool()


@dataclass
class Contender:
    """An implementation: its parameters, the log-likelihood of a batch, decoding to lists, and our backend."""

    module: nn.Module
    llh: Callable[[Batch], Tensor]
    decode: Callable[[Batch], Any]
    backend: str | None = None


def pytorch_crf(num_tags: int) -> Contender:
    from torchcrf import CRF

    crf = CRF(num_tags, batch_first=True)
    return Contender(
        crf,
        lambda batch: crf(batch.emissions, batch.tags, batch.mask),
        lambda batch: crf.decode(batch.emissions, batch.mask),
    )


def pyt_crf(num_tags: int) -> Contender:
    from pyt_crf import CRF

    crf = CRF(num_tags)
    return Contender(
        crf,
        lambda batch: -crf(batch.emissions, batch.tags, batch.mask, reduction="sum"),
        lambda batch: crf.decode(batch.emissions, batch.mask),
    )


def eds_nlp(num_tags: int) -> Contender:
    """The layer of EDS-NLP, from its file: the package itself imports spaCy and much else."""
    package = importlib.util.find_spec("edsnlp")
    if package is None or package.origin is None:
        raise ImportError("edsnlp is not installed")
    path = Path(package.origin).parent / "pipes" / "trainable" / "layers" / "crf.py"
    spec = importlib.util.spec_from_file_location("edsnlp_crf", path)
    assert spec is not None
    assert spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    crf = layers.LinearChainCRF(torch.zeros(num_tags, num_tags, dtype=torch.bool))
    return Contender(
        crf,
        lambda batch: -crf(batch.emissions, batch.mask, batch.one_hot).sum(),
        lambda batch: crf.decode(batch.emissions, batch.mask).tolist(),
    )


class TorchStruct(nn.Module):
    """torch-struct's distribution with the parameters of a CRF."""

    def __init__(self, num_tags: int) -> None:
        super().__init__()
        self.start_transitions = nn.Parameter(torch.zeros(num_tags))
        self.end_transitions = nn.Parameter(torch.zeros(num_tags))
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))

    def _distribution(self, batch: Batch) -> Any:
        from torch_struct import LinearChainCRF

        lengths = batch.mask.sum(1)  # (B,)
        B, W, C = batch.emissions.shape
        if B * W * C * C > STRUCT_LIMIT:
            raise MemoryError("too much memory")
        last = (torch.arange(W, device=lengths.device) == lengths[:, None] - 1)[:, :, None]  # (B, W, 1)
        unary = batch.emissions + last * self.end_transitions  # (B, W, C)
        # (B, W - 1, C to, C from)
        edges = unary[:, 1:, :, None] + self.transitions.T
        first = (unary[:, 0] + self.start_transitions)[:, None, None, :]  # (B, 1, 1, C)
        edges = torch.cat([edges[:, :1] + first, edges[:, 1:]], 1)
        return LinearChainCRF(edges, lengths=lengths)

    def llh(self, batch: Batch) -> Tensor:
        distribution = self._distribution(batch)
        event = distribution.struct.to_parts(batch.tags, self.transitions.size(0), lengths=batch.mask.sum(1))
        return distribution.log_prob(event.to(batch.emissions.dtype)).sum()

    def decode(self, batch: Batch) -> Any:
        distribution = self._distribution(batch)
        return distribution.struct.from_parts(distribution.argmax)[0].tolist()


def torch_struct(num_tags: int) -> Contender:
    import torch_struct  # noqa: F401

    module = TorchStruct(num_tags)
    return Contender(module, module.llh, module.decode)


PEERS: dict[str, Callable[[int], Contender]] = {
    "pytorch-crf": pytorch_crf,
    "pyt-crf": pyt_crf,
    "EDS-NLP": eds_nlp,
    "torch-struct": torch_struct,
}
