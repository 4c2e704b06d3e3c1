"""The steps that the scripts put together: start, train, evaluate, predict, finish."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from torch.distributed.elastic.multiprocessing.errors import record
from transformers import PreTrainedTokenizerBase, set_seed

from common.durable import tidy
from common.log import console, setup_logging
from models.tagger import Tagger
from tools.checkpoint import checkpoint_to_resume, is_in_run, publish_model
from tools.data import check_splits, load_and_cache_examples
from tools.distributed import (
    MainProcessError,
    is_main,
    leave_process_group,
    rank,
    run_on_main,
    setup_devices,
    wait_for_the_end_of_main,
    world_size,
)
from tools.evaluate import evaluate
from tools.heads import check_head
from tools.interruption import Interrupted
from tools.loading import check_source, load_model_and_tokenizer
from tools.predict import predict
from tools.run import Run
from tools.run_folder import lock_run_folder, prepare_folder, save_environment, unlock_run_folder
from tools.settings import Settings, require
from tools.train import train

logger = logging.getLogger(__name__)
_LAUNCHER_LOOKS = 2.0  # seconds in which a launcher looks at its processes for certain


def _call_and_fail_last(main: Callable[[], None]) -> None:
    """Lets the launcher see a process that died before one that only lost it: that names the cause."""
    try:
        main()
    except RuntimeError as error:
        if world_size() > 1 and not isinstance(error, MainProcessError):
            time.sleep(_LAUNCHER_LOOKS)
        raise


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's ``main``; what is wrong with arguments or data ends it with a message, not a traceback.

    A process that failed leaves the others to their launcher: to part in good order would be to wait for them.
    """
    try:
        record(partial(_call_and_fail_last, main))()  # for the launcher's summary
    except MainProcessError:
        wait_for_the_end_of_main()
        logging.shutdown()
        os._exit(1)  # an orderly exit takes apart a connection that is gone, and the library aborts over it
    except (ValueError, OSError, FloatingPointError) as error:
        logger.debug("Where it happened:", exc_info=True)
        who = "" if is_main() else f"rank {rank()}: "
        sys.exit(f"{Path(sys.argv[0]).name}: error: {who}{error}")
    except Interrupted:
        leave_process_group()
        raise
    finally:
        unlock_run_folder()
    leave_process_group()


def start_run(settings: Settings, head: type[Tagger]) -> Run:
    """Checks settings and data, joins the other processes, prepares the folder of the run, and sets the seed.

    Raises:
        ValueError: settings are missing or do not fit this machine, the data, or what the folder holds.
    """
    actions = settings.actions
    check_actions(settings)
    run = Run.of(settings, *setup_devices(settings.machine))
    check_splits(run)  # before an earlier run is cleared away
    lock_and_tidy(run.folder.path, may_be_new=actions.do_train)
    checkpoint = checkpoint_to_resume(actions.resume_from_checkpoint, run.folder) if actions.do_train else None
    if not actions.do_train:
        check_source(actions.output_dir, do_train=False, from_scratch=False)
    if checkpoint or not actions.do_train:
        check_head(checkpoint or run.folder.path, head)
    open_folder(run, checkpoint)
    return run


def check_actions(settings: Settings) -> None:
    """Raises a ValueError where it is not clear what is to be done, with which data, or where results go."""
    actions, data = settings.actions, settings.data
    require(settings, "task_name", "output_dir")
    require(settings, *(["model_name_or_path"] if actions.do_train else []))
    if not (data.dataset_name or data.data_dir or data.train_file or data.dev_file or data.test_file):
        require(settings, "data_dir")
    if not (actions.do_train or actions.do_eval or actions.do_predict):
        raise ValueError("nothing to do: add --do_train, --do_eval or --do_predict")
    if actions.resume_from_checkpoint and not actions.do_train:
        raise ValueError("--resume_from_checkpoint resumes a training: add --do_train")


def lock_and_tidy(folder: Path, may_be_new: bool) -> None:
    """Locks the folder of the run, and finishes what a killed process left half-done there; rank 0 does it."""

    def lock() -> None:
        if may_be_new or folder.is_dir():  # a mistyped folder is not created
            lock_run_folder(folder)
            tidy(folder)

    run_on_main(lock)


def open_folder(run: Run, checkpoint: Path | None) -> None:
    """Prepares the folder of the run, starts logging there, saves the environment and sets the seed.

    Args:
        checkpoint: to resume from.

    Raises:
        ValueError: training would overwrite an earlier run.
    """
    actions, folder = run.settings.actions, run.folder
    prepare_folder(folder, actions, resumes=is_in_run(checkpoint, folder))
    setup_logging(folder.path, anew=actions.do_train and checkpoint is None, is_main=is_main())
    for idle in _without_effect(run.settings) if is_main() else ():
        logger.warning(idle)
    if actions.do_train:
        run_on_main(lambda: save_environment(folder, run.device))
    set_seed(run.settings.optimisation.seed)  # the same on all ranks, so that new weights are
    logger.info("Device %s, %d GPUs in this process", run.device, run.n_gpu)


def _without_effect(settings: Settings) -> Iterator[str]:
    """Settings that have no effect in this run, though they may in one of other actions or more processes."""
    actions = settings.actions
    if actions.eval_all_checkpoints and not actions.do_eval:
        yield "--eval_all_checkpoints has no effect without --do_eval"
    if actions.predict_checkpoints and not actions.do_predict:
        yield f"--predict_checkpoints {actions.predict_checkpoints} has no effect without --do_predict"
    if settings.machine.shard_optimizer and world_size() == 1:
        yield "--shard_optimizer has no effect in a single process; see docs/distributed.md"


def train_and_save(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> None:
    """Trains and writes the model to ``output_dir``."""
    dataset = load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "train")
    steps, loss = train(run, dataset, model, tokenizer)
    publish_model(run.folder, run.settings, model, tokenizer)
    logger.info("Mean loss of %d steps %.4f; model written to %s", steps, loss, run.folder.path)


def finish_run(run: Run) -> None:
    """Prints where everything is."""
    if is_main():
        table = Table("what", "where", title=f"Run {run.folder.path}")
        for path, description in sorted(run.folder.described().items()):
            if path.exists():
                table.add_row(description, str(path))
        console().print(table)


def evaluate_run(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Scores dev with the final model, and with ``--eval_all_checkpoints`` with every checkpoint."""
    checkpoints = "all" if run.settings.actions.eval_all_checkpoints else ""
    return {prefix: evaluate(run, one, tokenizer, prefix) for prefix, one in _models(run, model, checkpoints)}


def predict_run(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Predicts test with the final model, and with the checkpoints of ``--predict_checkpoints``."""
    checkpoints = run.settings.actions.predict_checkpoints
    return {prefix: predict(run, one, tokenizer, prefix) for prefix, one in _models(run, model, checkpoints)}


def _models(run: Run, model: Tagger, checkpoints: str) -> Iterator[tuple[str, Tagger]]:
    """The model of the run, then those of its checkpoints, each with the folder for its results."""
    names = run_on_main(lambda: [folder.name for folder in run.folder.checkpoints()])
    wanted = names if checkpoints in ("", "all") else [run.folder.checkpoint(checkpoints).name]
    if not set(wanted) <= set(names):
        raise ValueError(f"{run.folder.path} has no {wanted[0]}; there are {', '.join(names) or 'no checkpoints'}")
    if checkpoints == "all" and not names and is_main():
        logger.warning("%s has no checkpoints beside its model; --save_steps keeps some", run.folder.path)
    folders = [run.folder.path / name for name in wanted if checkpoints]
    for folder in folders:
        check_head(folder, type(model))  # before anything is scored
    yield "", model
    for folder in folders:
        yield folder.name, load_model_and_tokenizer(run.applying(), type(model), source=str(folder))[1]
