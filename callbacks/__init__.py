"""Around a step: checkpoints, TensorBoard, progress, adversarial training."""

from callbacks.adversarial import FastGradientMethod
from callbacks.base import Backward, Callback, Callbacks, TrainState
from callbacks.checkpoints import BEST_FOLDER, Checkpoints
from callbacks.progress import Progress
from callbacks.tensorboard import TensorBoard

__all__ = [
    "BEST_FOLDER",
    "Backward",
    "Callback",
    "Callbacks",
    "Checkpoints",
    "FastGradientMethod",
    "Progress",
    "TensorBoard",
    "TrainState",
]
