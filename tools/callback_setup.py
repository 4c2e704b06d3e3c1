"""The callbacks that the arguments ask for."""

from dataclasses import fields
from pathlib import Path

from callbacks import (
    Callback,
    Checkpoints,
    EarlyStopping,
    ExponentialAverage,
    FastGradientMethod,
    MLflow,
    Progress,
    ProjectedGradientDescent,
    RDrop,
    StochasticWeightAverage,
    TensorBoard,
    WandB,
    Watchdog,
)
from callbacks.averaging import WeightAveraging
from common.plugins import imported
from tools.arguments import HeadArguments, ModelArguments, NerArguments, OptimisationArguments


def build_callbacks(args: NerArguments, checkpoints: Checkpoints) -> list[Callback]:
    """In the order in which they are called: the mean of the weights first, that all others see it.

    Raises:
        ValueError: they ask for what there is not.
    """
    averaging = weight_averaging(args)
    first: list[Callback] = [averaging] if averaging else []
    callbacks = [*first, checkpoints, Progress(), Watchdog(), *_reporters(args)]
    if args.early_stopping_patience:
        callbacks.append(EarlyStopping(args.early_stopping_patience, args.metric_for_best_model))
    return [*callbacks, *build_strategies(args), *_of_the_user(args)]


def weight_averaging(args: NerArguments) -> WeightAveraging | None:
    """The mean of the weights that the arguments ask for."""
    if args.averaging == "ema":
        return ExponentialAverage(args.ema_decay)
    return StochasticWeightAverage(args.swa_start) if args.averaging == "swa" else None


def _reporters(args: NerArguments) -> list[Callback]:
    chosen, folder = args.reporters(), Path(args.output_dir)
    parameters = _hyper_parameters(args)
    reporters: list[Callback] = []
    if "tensorboard" in chosen:
        reporters.append(TensorBoard(folder / "tensorboard", parameters))
    if "mlflow" in chosen:
        reporters.append(MLflow(folder.name, parameters))
    if "wandb" in chosen:
        reporters.append(WandB(folder.name, parameters))
    return reporters


def _hyper_parameters(args: NerArguments) -> dict[str, str | float | bool]:
    groups = (ModelArguments, HeadArguments, OptimisationArguments)
    return {one.name: getattr(args, one.name) for group in groups for one in fields(group)}


def build_strategies(args: NerArguments) -> list[Callback]:
    """The callbacks that learn from a batch in several passes; they work under Lightning too."""
    strategies: list[Callback] = [RDrop(args.rdrop_alpha)] if args.rdrop_alpha else []
    if args.do_adv and args.adv_type == "pgd":
        strategies.append(ProjectedGradientDescent(args.adv_name, args.adv_epsilon, args.adv_alpha, args.adv_steps))
    elif args.do_adv:
        strategies.append(FastGradientMethod(args.adv_name, args.adv_epsilon))
    return strategies


def _of_the_user(args: NerArguments) -> list[Callback]:
    """What ``--callback module:Class`` names, made without arguments."""
    if not args.callback:
        return []
    found = imported(args.callback, "--callback")
    if not (isinstance(found, type) and issubclass(found, Callback)):
        raise ValueError(f"--callback {args.callback}: this is no subclass of callbacks.Callback")
    return [found()]
