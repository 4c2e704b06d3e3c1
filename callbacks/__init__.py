"""Around a step: checkpoints, early stopping, weight averaging, adversarial training, TensorBoard, progress."""

from callbacks.adversarial import FastGradientMethod, ProjectedGradientDescent
from callbacks.averaging import ExponentialAverage, StochasticWeightAverage
from callbacks.base import Backward, Callback, Callbacks, TrainState
from callbacks.checkpoints import BEST_FOLDER, Checkpoints
from callbacks.early_stopping import EarlyStopping
from callbacks.progress import Progress
from callbacks.tensorboard import TensorBoard

__all__ = [
    "BEST_FOLDER",
    "Backward",
    "Callback",
    "Callbacks",
    "Checkpoints",
    "EarlyStopping",
    "ExponentialAverage",
    "FastGradientMethod",
    "Progress",
    "ProjectedGradientDescent",
    "StochasticWeightAverage",
    "TensorBoard",
    "TrainState",
]
