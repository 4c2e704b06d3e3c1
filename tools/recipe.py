"""Building blocks of the scripts: start a run, train, evaluate, predict, finish."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import PreTrainedTokenizerBase, set_seed

from common.durable import tidy
from common.log import console, setup_logging
from common.run_files import RunFolder
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from tools import distributed
from tools.checkpoint import checkpoint_to_resume, is_in_run, publish_model
from tools.command_line import flag_value, parse_settings
from tools.data import check_splits, load_and_cache_examples, load_training_data
from tools.evaluate import check_dataset, evaluate, predict
from tools.heads import check_has_model, head_of_folder
from tools.loading import adopt_model, check_source, load_model_and_tokenizer
from tools.run import Run
from tools.run_folder import lock_run_folder, prepare_folder, save_environment
from tools.settings import Settings, require
from tools.train import train

logger = logging.getLogger(__name__)


def start_run(settings: Settings, head: type[Tagger]) -> Run:
    """Check settings and data, join the process group, prepare the run folder, and set the seed.

    Raises:
        ValueError: settings are missing, or do not match this machine, the data or the content of the folder.
    """
    actions = settings.actions
    check_actions(settings)
    run = Run.of(settings, *distributed.setup_devices(settings.machine))
    check_splits(run)  # before an earlier run is deleted
    lock_and_tidy(run.folder.path, may_be_new=actions.do_train)
    checkpoint = checkpoint_to_resume(actions.resume_from_checkpoint, run.folder) if actions.do_train else None
    if not actions.do_train:
        check_source(actions.output_dir, do_train=False, from_scratch=False)
    if checkpoint or not actions.do_train:
        head_of_folder(checkpoint or run.folder.path, head)
    open_folder(run, checkpoint)
    return run


def open_trained(folder: Path, head: str = "", no_cuda: bool = False) -> tuple[Run, Tagger, PreTrainedTokenizerBase]:
    """Load the model of a run folder onto its device, for raw texts.

    Args:
        head: the head if it is not built in, as ``module:Class``.

    Raises:
        ValueError: the folder holds no model, or that of another head.
    """
    check_has_model(folder, "name the output_dir of a run")
    settings = Settings.of(output_dir=str(folder), no_cuda=no_cuda)
    run = Run.of(settings, *distributed.setup_devices(settings.machine))
    run, model, tokenizer = load_model_and_tokenizer(run, head_of_folder(folder, head))
    torch.nn.Module.to(model, run.device)
    return run, model, tokenizer


def open_dev(folder: Path, flags: Sequence[str]) -> tuple[Run, Tagger, PreTrainedTokenizerBase, FeatureDataset]:
    """Load a trained model and its dev split, to change how it decides.

    Args:
        folder: a run folder; without the settings of a run, the flags must name the data.
        flags: flags of the script of the run, which replace those of the run.

    Raises:
        ValueError: the folder holds no model, nothing says where its data are, or they do not match the model.
    """
    check_has_model(folder, "name the output_dir of a run")
    head, saved = head_of_folder(folder, flag_value(flags, "head")), RunFolder(folder).settings
    if not (saved.is_file() or flags):
        raise ValueError(f"{folder} has no {saved.name}, which names the data of a run; add --task_name and --data_dir")
    of_run = json.loads(saved.read_text("utf-8")) if saved.is_file() else {}
    of_head = {option.name for option in fields(head.Options)}  # the config of the folder holds what they are
    own = [f"--{name}={value}" for name, value in of_run.items() if name not in of_head]
    actions = ["--do_train=false", "--do_eval=true", "--do_predict=false", f"--output_dir={folder}"]
    run = start_run(parse_settings(head.Options, None, [*own, *actions, *flags]), head)
    run, model, tokenizer = load_model_and_tokenizer(run, head)
    run = adopt_model(run, model)
    dataset = load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "dev")
    check_dataset(dataset, model)
    return run, model, tokenizer, dataset


def check_actions(settings: Settings) -> None:
    """Raise a ValueError if actions, data or output folder are missing."""
    actions, data = settings.actions, settings.data
    require(settings, "task_name", "output_dir")
    require(settings, *(["model_name_or_path"] if actions.do_train else []))
    if not (data.corpora or data.dataset_name or data.data_dir or data.train_file or data.dev_file or data.test_file):
        require(settings, "data_dir")
    if not (actions.do_train or actions.do_eval or actions.do_predict):
        raise ValueError("nothing to do: add --do_train, --do_eval or --do_predict")


def lock_and_tidy(folder: Path, may_be_new: bool) -> None:
    """Lock the run folder, and clean up after killed processes. Only rank 0 acts."""

    def lock() -> None:
        if may_be_new or folder.is_dir():  # do not create a mistyped folder
            lock_run_folder(folder)
            tidy(folder)

    distributed.run_on_main(lock)


def open_folder(run: Run, checkpoint: Path | None) -> None:
    """Prepare the run folder, start logging to it, save the environment and set the seed.

    Args:
        checkpoint: checkpoint to resume from.

    Raises:
        ValueError: training would overwrite an earlier run.
    """
    actions, folder = run.settings.actions, run.folder
    prepare_folder(folder, actions, resumes=is_in_run(checkpoint, folder))
    setup_logging(folder.path, anew=actions.do_train and checkpoint is None, is_main=distributed.is_main())
    for idle in _without_effect(run.settings) if distributed.is_main() else ():
        logger.warning(idle)
    if actions.do_train:
        distributed.run_on_main(lambda: save_environment(folder, run.device))
    set_seed(run.settings.optimisation.seed)  # same on all ranks, for equal initial weights
    logger.info("Device %s, %d GPUs in this process", run.device, run.n_gpu)


def _without_effect(settings: Settings) -> Iterator[str]:
    """Messages about settings that have no effect with the actions and processes of this run."""
    actions = settings.actions
    if actions.eval_all_checkpoints and not actions.do_eval:
        yield "--eval_all_checkpoints has no effect without --do_eval"
    if actions.predict_checkpoints and not actions.do_predict:
        yield f"--predict_checkpoints {actions.predict_checkpoints} has no effect without --do_predict"
    if actions.resume_from_checkpoint and not actions.do_train:
        yield "--resume_from_checkpoint has no effect without --do_train"
    if settings.machine.shard_optimizer and distributed.world_size() == 1:
        yield "--shard_optimizer has no effect in a single process; see docs/distributed.md"


def train_and_save(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> None:
    """Train, and write the model to ``output_dir``."""
    dataset = load_training_data(run, tokenizer)
    steps, loss = train(run, dataset, model, tokenizer)
    publish_model(run.folder, run.settings, model, tokenizer)
    logger.info("Mean loss of %d steps %.4f; model written to %s", steps, loss, run.folder.path)


def finish_run(run: Run) -> None:
    """Print the output files of the run."""
    if distributed.is_main():
        table = Table("what", "where", title=f"Run {run.folder.path}")
        for path, description in sorted(run.folder.described().items()):
            if path.exists():
                table.add_row(description, str(path))
        console().print(table)


def evaluate_run(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Score dev with the final model and, with ``--eval_all_checkpoints``, with every checkpoint."""
    checkpoints = "all" if run.settings.actions.eval_all_checkpoints else ""
    return {prefix: evaluate(run, one, tokenizer, prefix) for prefix, one in _models(run, model, checkpoints)}


def predict_run(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Predict test with the final model and with the checkpoints of ``--predict_checkpoints``."""
    checkpoints = run.settings.actions.predict_checkpoints
    return {prefix: predict(run, one, tokenizer, prefix) for prefix, one in _models(run, model, checkpoints)}


def _models(run: Run, model: Tagger, checkpoints: str) -> Iterator[tuple[str, Tagger]]:
    """Yield the final model and those of checkpoints, each with the subfolder for its results."""
    names = distributed.run_on_main(lambda: [folder.name for folder in run.folder.checkpoints()])
    wanted = names if checkpoints in ("", "all") else [run.folder.checkpoint(checkpoints).name]
    if not set(wanted) <= set(names):
        raise ValueError(f"{run.folder.path} has no {wanted[0]}; there are {', '.join(names) or 'no checkpoints'}")
    if checkpoints == "all" and not names and distributed.is_main():
        logger.warning("%s has no checkpoints, only the final model; save some with --save_steps", run.folder.path)
    folders = [run.folder.path / name for name in wanted if checkpoints]
    for folder in folders:
        head_of_folder(folder, type(model))  # before anything is scored
    yield "", model
    for folder in folders:
        yield folder.name, load_model_and_tokenizer(run.applying(), type(model), source=str(folder))[1]
