"""What all that draw curves are told."""

from collections.abc import Mapping

from callbacks.base import Callback, TrainState


class Reporter(Callback):
    """Sends numbers by name and step to where somebody looks at them; on rank 0 only.

    Subclasses say how to open, write and close.
    """

    def __init__(self) -> None:
        self._is_open = False

    def on_train_begin(self, state: TrainState) -> None:
        if state.is_main:
            self.open(state)
            self._is_open = True

    def on_log(self, state: TrainState) -> None:
        if self._is_open:
            self.write(_of_training(state), state.step)

    def on_evaluate(self, state: TrainState) -> None:
        if self._is_open:
            self.write(_of_dev(state), state.step)

    def on_train_end(self, state: TrainState) -> None:
        if self._is_open and state.best_metrics:
            self.write({f"final/{name}": value for name, value in state.best_metrics.items()}, state.step)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.shut()

    def open(self, state: TrainState) -> None:
        """The training begins, or goes on after ``state.step``."""
        raise NotImplementedError

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Numbers of a step; names have parts joined by slashes."""
        raise NotImplementedError

    def shut(self) -> None:
        """The training has ended, well or not."""
        raise NotImplementedError


def _of_training(state: TrainState) -> dict[str, float]:
    scalars = {
        "loss": state.loss,
        "gradient_norm": state.gradient_norm,
        "epoch": state.epoch,
        "words_per_second": state.words_per_second,
        "padding_share": state.padding_share,
        "utilisation": state.utilisation,
        "memory_gib": state.memory_gib,
        "skipped_steps": state.skipped_steps,
    }
    rates = {f"learning_rate/{learner}": rate for learner, rate in state.learning_rates.items()}
    return {f"train/{name}": value for name, value in scalars.items()} | rates


def _of_dev(state: TrainState) -> dict[str, float]:
    scalars = {f"dev/{name}": value for name, value in state.metrics.items()}
    for entity_type, scores in state.type_metrics.items():
        group = f"dev_types/{entity_type}" if entity_type else "dev_types"  # MLflow takes no empty part
        scalars |= {f"{group}/{name}": value for name, value in scores.items()}
    return scalars
