"""The callbacks that the arguments ask for."""

from pathlib import Path

from callbacks import (
    Callback,
    Checkpoints,
    EarlyStopping,
    ExponentialAverage,
    FastGradientMethod,
    Progress,
    ProjectedGradientDescent,
    StochasticWeightAverage,
    TensorBoard,
)
from tools.arguments import NerArguments
from tools.evaluate import SplitScores
from tools.metrics import EntityScores


def build_callbacks(args: NerArguments, checkpoints: Checkpoints) -> list[Callback]:
    """In the order in which they are called.

    Raises:
        ValueError: they ask for what there is not.
    """
    _check_metric(args.metric_for_best_model)
    callbacks: list[Callback] = [
        *_averaging(args),
        checkpoints,
        Progress(),
        TensorBoard(Path(args.output_dir, "tensorboard")),
    ]
    if args.early_stopping_patience:
        callbacks.append(EarlyStopping(args.early_stopping_patience, args.metric_for_best_model))
    return [*callbacks, *_adversary(args)]


def _adversary(args: NerArguments) -> list[Callback]:
    if not args.do_adv:
        return []
    if args.adv_type == "pgd":
        return [ProjectedGradientDescent(args.adv_name, args.adv_epsilon, args.adv_alpha, args.adv_steps)]
    return [FastGradientMethod(args.adv_name, args.adv_epsilon)]


def _averaging(args: NerArguments) -> list[Callback]:
    if args.averaging == "ema":
        return [ExponentialAverage(args.ema_decay)]
    return [StochasticWeightAverage(args.swa_start)] if args.averaging == "swa" else []


def _check_metric(name: str) -> None:
    metrics = SplitScores(EntityScores(), loss=0.0).headline()
    if name not in metrics:
        raise ValueError(f"--metric_for_best_model {name} is none of {', '.join(metrics)}")
