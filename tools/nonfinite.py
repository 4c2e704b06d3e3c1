"""Steps that were left out because their loss or gradients were not finite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from processors.feature_dataset import FeatureDataset
from tools.distributed import is_main
from tools.run_folder import write_json

SUSPECTS_FILE = "nonfinite_steps.json"


class NonFiniteSteps:
    """Counts them, and ends the training after too many in a row, with their batches written down for a look.

    Args:
        dataset, tokenizer: what the batches are made of.
        output_dir: folder of the run.
        patience: so many in a row are too many.
    """

    def __init__(
        self, dataset: FeatureDataset, tokenizer: PreTrainedTokenizerBase, output_dir: Path, patience: int
    ) -> None:
        self._dataset, self._tokenizer = dataset, tokenizer
        self._file = output_dir / SUSPECTS_FILE
        self._patience = patience
        self._pending: list[tuple[int, NDArray[np.int64], Tensor]] = []
        self._finite: list[float] = []
        self._in_a_row: list[tuple[int, list[int], float]] = []
        self.total = 0

    def add(self, step: int, windows: NDArray[np.int64], norm: Tensor) -> None:
        """Remembers the gradient norm of a step, on its device."""
        self._pending.append((step, windows, norm))

    def look(self) -> float:
        """The mean of the finite norms since the last look.

        Raises:
            FloatingPointError: too many steps in a row were left out.
        """
        self._read()
        finite, self._finite = self._finite, []
        return float(np.mean(finite)) if finite else float("nan")

    def _read(self) -> None:
        norms = [(step, windows.tolist(), float(norm)) for step, windows, norm in self._pending]
        self._pending.clear()
        for step, windows, norm in norms:
            if np.isfinite(norm):
                self._finite.append(norm)
                self._in_a_row.clear()
                continue
            self.total += 1
            self._in_a_row.append((step, windows, norm))
            if len(self._in_a_row) == self._patience:
                self._give_up()

    def state_dict(self) -> dict[str, Any]:
        self._read()
        return {"total": self.total, "finite": self._finite, "in_a_row": self._in_a_row}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.total = saved["total"]
        self._finite, self._in_a_row = list(saved["finite"]), list(saved["in_a_row"])

    def _give_up(self) -> None:
        first, last = self._in_a_row[0][0], self._in_a_row[-1][0]
        if is_main():
            write_json(self._file, [self._described(*step) for step in self._in_a_row])
        raise FloatingPointError(
            f"loss or gradients of {self._patience} steps in a row ({first} to {last}) were not finite; lower "
            f"--learning_rate, take --bf16 instead of --fp16, or look at their texts in {self._file}"
        )

    def _described(self, step: int, windows: list[int], norm: float) -> dict[str, Any]:
        return {"step": step, "gradient_norm": str(norm), "windows": [self._window(one) for one in windows]}

    def _window(self, index: int) -> dict[str, Any]:
        window, names = self._dataset[index], self._dataset.label_list
        document = self._dataset.document(window.document)
        words = document.words[window.first_word : window.first_word + len(window.word_positions)]
        return {
            "guid": document.guid,
            "words": words,
            "tags": [names[label] for label in window.label_ids],
            "tokens": self._tokenizer.convert_ids_to_tokens(window.input_ids.tolist()),
        }
