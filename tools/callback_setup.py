"""The callbacks that the arguments ask for."""

from pathlib import Path

from callbacks import Callback, Checkpoints, EarlyStopping, FastGradientMethod, Progress, TensorBoard
from tools.arguments import NerArguments
from tools.evaluate import SplitScores
from tools.metrics import EntityScores


def build_callbacks(args: NerArguments, checkpoints: Checkpoints) -> list[Callback]:
    """In the order in which they are called.

    Raises:
        ValueError: they ask for what there is not.
    """
    _check_metric(args.metric_for_best_model)
    callbacks: list[Callback] = [checkpoints, Progress(), TensorBoard(Path(args.output_dir, "tensorboard"))]
    if args.early_stopping_patience:
        callbacks.append(EarlyStopping(args.early_stopping_patience, args.metric_for_best_model))
    if args.do_adv:
        callbacks.append(FastGradientMethod(args.adv_name, args.adv_epsilon))
    return callbacks


def _check_metric(name: str) -> None:
    metrics = SplitScores(EntityScores(), loss=0.0).headline()
    if name not in metrics:
        raise ValueError(f"--metric_for_best_model {name} is none of {', '.join(metrics)}")
