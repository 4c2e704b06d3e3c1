"""The training as MLflow shows it."""

from collections.abc import Mapping
from typing import Any

from callbacks.base import TrainState
from callbacks.optional import import_optional
from callbacks.reporter import Reporter


class MLflow(Reporter):
    """A run where ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` say; a resumed training goes on in its run.

    Args:
        name: of the run.
        hyper_parameters: what tells this run from others.

    Raises:
        ValueError: the package mlflow is not installed.
    """

    def __init__(self, name: str, hyper_parameters: Mapping[str, str | float | bool]) -> None:
        super().__init__()
        self._mlflow = import_optional("mlflow", "--report_to mlflow")
        self._name, self._hyper_parameters = name, dict(hyper_parameters)
        self._run_id: str | None = None

    def open(self, state: TrainState) -> None:
        run = self._mlflow.start_run(run_id=self._run_id, run_name=self._name)
        if self._run_id is None:
            self._mlflow.log_params(self._hyper_parameters)
        self._run_id = run.info.run_id

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(scalars), step=step)

    def shut(self) -> None:
        self._mlflow.end_run()

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self._run_id}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._run_id = saved["run_id"]
