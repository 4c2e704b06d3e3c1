"""The training as Weights & Biases shows it."""

from collections.abc import Mapping
from typing import Any

from callbacks.base import TrainState
from callbacks.optional import import_optional
from callbacks.reporter import Reporter


class WandB(Reporter):
    """A run of the project that ``WANDB_PROJECT`` names; a resumed training goes on in its run.

    Args:
        name: of the run.
        hyper_parameters: what tells this run from others.

    Raises:
        ValueError: the package wandb is not installed.
    """

    def __init__(self, name: str, hyper_parameters: Mapping[str, str | float | bool]) -> None:
        super().__init__()
        self._wandb = import_optional("wandb", "--report_to wandb")
        self._name, self._hyper_parameters = name, dict(hyper_parameters)
        self._run_id: str | None = None
        self._run: Any = None

    def open(self, state: TrainState) -> None:
        config = self._hyper_parameters
        self._run = self._wandb.init(name=self._name, config=config, id=self._run_id, resume="allow")
        self._run_id = self._run.id

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def shut(self) -> None:
        self._run.finish()

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self._run_id}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._run_id = saved["run_id"]
