"""Around a step: checkpoints, early stopping, weight averaging, adversarial training, TensorBoard, progress."""

from callbacks.adversarial import FastGradientMethod, ProjectedGradientDescent
from callbacks.averaging import ExponentialAverage, StochasticWeightAverage
from callbacks.base import Backward, Callback, Callbacks, Forward, ScoredText, TrainState
from callbacks.checkpoints import Checkpoints
from callbacks.monitors import EarlyStopping, Watchdog
from callbacks.progress import Progress
from callbacks.rdrop import RDrop
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
