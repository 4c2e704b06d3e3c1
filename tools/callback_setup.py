"""Build the callbacks that the settings select."""

import callbacks
from callbacks import Callback, Checkpoints
from common.options import imported
from tools.distillation import Distillation, load_teachers
from tools.missing_entities import MissingEntities, annotated_share, entity_ratio
from tools.run import Run


def build_callbacks(run: Run, checkpoints: Checkpoints) -> list[Callback]:
    """Build all callbacks, in calling order: weight averaging comes first, so that the others see averaged weights.

    Raises:
        ValueError: ``--callback`` does not name a subclass of `callbacks.Callback`, or a teacher cannot be loaded.
    """
    settings, folder = run.settings, run.folder
    optimisation, logging = settings.optimisation, settings.logging
    parameters = {**vars(settings.model), **vars(settings.head), **vars(optimisation)}
    built: list[Callback] = []
    if optimisation.averaging == "ema":
        built.append(callbacks.ExponentialAverage(optimisation.ema_decay))
    elif optimisation.averaging == "swa":
        built.append(callbacks.StochasticWeightAverage(optimisation.swa_start))
    built += [checkpoints, callbacks.Progress(), callbacks.Watchdog()]
    if "tensorboard" in logging.reporters:
        built.append(callbacks.TensorBoard(folder.tensorboard, parameters))
    if "mlflow" in logging.reporters:
        built.append(callbacks.MLflow(folder.path.name, parameters))
    if "wandb" in logging.reporters:
        built.append(callbacks.WandB(folder.path.name, parameters))
    if logging.early_stopping_patience:
        built.append(callbacks.EarlyStopping(logging.early_stopping_patience, checkpoints.metric))
    if optimisation.rdrop_alpha:
        built.append(callbacks.RDrop(optimisation.rdrop_alpha))
    if optimisation.teacher:
        teachers = load_teachers(optimisation.teacher.split(","), run.train_max_seq_length)
        built.append(Distillation(teachers, optimisation.distill_weight, optimisation.distill_temperature))
    if optimisation.missing_entities:
        ratio, margin = entity_ratio(run), optimisation.entity_ratio_margin
        share, weight = annotated_share(run, ratio), optimisation.entity_ratio_weight
        built.append(MissingEntities(ratio, share, margin, weight))
    if optimisation.do_adv:
        name, epsilon, alpha = optimisation.adv_name, optimisation.adv_epsilon, optimisation.adv_alpha
        if optimisation.adv_type == "pgd":
            built.append(callbacks.ProjectedGradientDescent(name, epsilon, alpha, optimisation.adv_steps))
        else:
            built.append(callbacks.FastGradientMethod(name, epsilon))
    if logging.callback:
        found = imported(logging.callback, "--callback")
        if not (isinstance(found, type) and issubclass(found, Callback)):
            raise ValueError(f"--callback {logging.callback}: not a subclass of callbacks.Callback")
        built.append(found())
    return built
