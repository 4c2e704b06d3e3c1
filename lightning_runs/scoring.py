"""Scores of whole splits under Lightning: every process scores a share of the batches and gets the whole result."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from callbacks.monitors import nonfinite_loss
from processors.features.batching import FixedBatches
from tools.decoding import GatheredScores, shared_batches
from tools.distributed import is_main, world_size
from tools.run import Run

logger = logging.getLogger(__name__)


class SplitScoring(LightningModule):
    """What Lightning calls to validate, test and predict; subclasses say which splits there are and what is scored.

    Args:
        run: settings and folder.
        model: what is asked.
    """

    def __init__(self, run: Run, model: PreTrainedModel) -> None:
        super().__init__()
        self.run = run
        self.model = model
        self.output_dir = run.folder.path
        self.datasets: dict[str, Any] = {}
        self.results: dict[str, float] = {}
        self._batches: list[list[NDArray[np.int64]]] = []
        self._scores: list[GatheredScores] = []

    @abstractmethod
    def splits(self, stage: str) -> list[str]:
        """The splits that ``fit`` (train first), ``test`` or ``predict`` reads."""

    @abstractmethod
    def unit_counts(self, dataset: Any) -> NDArray[np.int32]:
        """What the loss is a mean over, and scores are rows of: the words, or the one label, of each item."""

    @abstractmethod
    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores of a batch, ``(B, W, C)`` or ``(B, C)``."""

    @abstractmethod
    def score(self, split: str, dataset: Any, scores: Tensor, stage: str) -> dict[str, float]:
        """What a split's gathered scores, ``(units, C)``, amount to; ``loss`` is the mean a unit."""

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return self._eval_loaders(self.splits("fit")[1:])

    def test_dataloader(self) -> list[DataLoader[Any]]:
        return self._eval_loaders(self.splits("test"))

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        return self._eval_loaders(self.splits("predict"))

    def _eval_loaders(self, splits: Sequence[str]) -> list[DataLoader[Any]]:
        loaders = []
        self._batches = []
        for split in splits:
            dataset = self.datasets[split]
            if len(dataset) < world_size():
                raise ValueError(f"{split} has {len(dataset)} sequences for {world_size()} processes; use fewer")
            batch_size = self.run.settings.optimisation.per_gpu_eval_batch_size
            batch_size = min(batch_size, len(dataset) // world_size())  # each rank needs one
            self._batches.append(shared_batches(dataset.lengths, batch_size))
            sampler = FixedBatches(self._batches[-1])
            loaders.append(DataLoader(dataset, batch_sampler=sampler, **self.loading_options(dataset)))
        return loaders

    def loading_options(self, dataset: Any) -> dict[str, Any]:
        pinned = self.device.type == "cuda"
        return {
            "collate_fn": dataset.collate,
            "num_workers": self.run.settings.optimisation.num_workers,
            "pin_memory": pinned,
        }

    def _start_scoring(self, splits: Sequence[str]) -> None:
        columns = len(self.model.config.id2label or {})
        counts = [self.unit_counts(self.datasets[split]) for split in splits]
        self._scores = [GatheredScores(count, columns, self.device) for count in counts]

    def _scoring_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._scores[dataloader_idx].add(self._batches[dataloader_idx][batch_idx], self.logits(batch))

    def _end_scoring(self, splits: Sequence[str], stage: str) -> dict[str, float]:
        """The scores of all splits; those of further ones bear the split's name."""
        results: dict[str, float] = {}
        for split, scores in zip(splits, self._scores, strict=True):
            found = self.score(split, self.datasets[split], scores.over_ranks(), stage)
            results |= {name if split == splits[0] else f"{split}_{name}": value for name, value in found.items()}
        self._scores = []
        return results

    def on_validation_epoch_start(self) -> None:
        self._start_scoring(self.splits("fit")[1:])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._scoring_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        results = {f"val_{key}": value for key, value in self._end_scoring(self.splits("fit")[1:], "fit").items()}
        self.log_dict(results, prog_bar=True)
        if (nonfinite := nonfinite_loss(results.get("val_loss", 0.0), self.model)) and is_main():
            logger.warning(nonfinite)
        logger.info("Epoch %d: %s", self.current_epoch, ", ".join(f"{k} {v:.4f}" for k, v in results.items()))

    def on_test_epoch_start(self) -> None:
        self._start_scoring(self.splits("test"))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._scoring_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self.results = self._end_scoring(self.splits("test"), "test")
        self.log_dict({f"test_{name}": value for name, value in self.results.items()})
        if not self.results:
            logger.info("The test split is unlabelled: it is predicted, not scored")
        elif is_main():
            self.write_results()
            logger.info("Test: %s", ", ".join(f"{name} {value:.4f}" for name, value in self.results.items()))

    def write_results(self) -> None:
        """Writes the scores of the test split to ``test_results.txt``; the main process calls it."""
        lines = [f"{name} = {value}\n" for name, value in self.results.items()]
        self.run.folder.results("test", "txt").write_text("".join(lines), "utf-8")

    def on_predict_epoch_start(self) -> None:
        self._start_scoring(self.splits("predict"))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._scoring_step(batch, batch_idx, dataloader_idx)

    def on_predict_epoch_end(self) -> None:
        self._end_scoring(self.splits("predict"), "predict")
