"""Around a step: checkpoints, early stopping, weight averaging, adversarial training, TensorBoard, progress."""

from callbacks.averaging import ExponentialAverage, StochasticWeightAverage
from callbacks.base import Backward, Callback, Callbacks, Forward, ScoredText, TrainState
from callbacks.checkpoints import Checkpoints
from callbacks.monitors import EarlyStopping, Progress, Watchdog
from callbacks.strategies import FastGradientMethod, ProjectedGradientDescent, RDrop
from callbacks.trackers import MLflow, TensorBoard, WandB

__all__ = [
    "Backward",
    "Callback",
    "Callbacks",
    "Checkpoints",
    "EarlyStopping",
    "ExponentialAverage",
    "FastGradientMethod",
    "Forward",
    "MLflow",
    "Progress",
    "ProjectedGradientDescent",
    "RDrop",
    "ScoredText",
    "StochasticWeightAverage",
    "TensorBoard",
    "TrainState",
    "WandB",
    "Watchdog",
]
