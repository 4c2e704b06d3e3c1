"""Build the callbacks that the settings select."""

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
from common.options import imported
from common.run_files import RunFolder
from tools.settings import OptimisationSettings, Settings


def build_callbacks(settings: Settings, folder: RunFolder, checkpoints: Checkpoints) -> list[Callback]:
    """Build all callbacks, in calling order: weight averaging comes first, so that the others see averaged weights.

    Raises:
        ValueError: ``--callback`` does not name a subclass of `callbacks.Callback`.
    """
    averaging, logging = weight_averaging(settings.optimisation), settings.logging
    first: list[Callback] = [averaging] if averaging else []
    callbacks = [*first, checkpoints, Progress(), Watchdog(), *_trackers(settings, folder)]
    if logging.early_stopping_patience:
        callbacks.append(EarlyStopping(logging.early_stopping_patience, checkpoints.metric))
    return [*callbacks, *build_strategies(settings.optimisation), *_of_the_user(logging.callback)]


def weight_averaging(optimisation: OptimisationSettings) -> WeightAveraging | None:
    """Build the weight averaging callback, if any."""
    if optimisation.averaging == "ema":
        return ExponentialAverage(optimisation.ema_decay)
    return StochasticWeightAverage(optimisation.swa_start) if optimisation.averaging == "swa" else None


def _trackers(settings: Settings, folder: RunFolder) -> list[Callback]:
    parameters = {**vars(settings.model), **vars(settings.head), **vars(settings.optimisation)}
    trackers: list[Callback] = []
    if "tensorboard" in settings.logging.reporters:
        trackers.append(TensorBoard(folder.tensorboard, parameters))
    if "mlflow" in settings.logging.reporters:
        trackers.append(MLflow(folder.path.name, parameters))
    if "wandb" in settings.logging.reporters:
        trackers.append(WandB(folder.path.name, parameters))
    return trackers


def build_strategies(optimisation: OptimisationSettings) -> list[Callback]:
    """Build the callbacks that run several passes per batch; they also work under Lightning."""
    strategies: list[Callback] = [RDrop(optimisation.rdrop_alpha)] if optimisation.rdrop_alpha else []
    name, epsilon = optimisation.adv_name, optimisation.adv_epsilon
    if optimisation.do_adv and optimisation.adv_type == "pgd":
        strategies.append(ProjectedGradientDescent(name, epsilon, optimisation.adv_alpha, optimisation.adv_steps))
    elif optimisation.do_adv:
        strategies.append(FastGradientMethod(name, epsilon))
    return strategies


def _of_the_user(name: str) -> list[Callback]:
    """Instantiate the class named by ``--callback module:Class``, without arguments."""
    if not name:
        return []
    found = imported(name, "--callback")
    if not (isinstance(found, type) and issubclass(found, Callback)):
        raise ValueError(f"--callback {name}: not a subclass of callbacks.Callback")
    return [found()]
