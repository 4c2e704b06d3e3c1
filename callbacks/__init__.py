"""Around a step: checkpoints, TensorBoard, progress, adversarial training."""

from callbacks.adversarial import FastGradientMethod
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
    "FastGradientMethod",
    "Progress",
    "TensorBoard",
    "TrainState",
]
