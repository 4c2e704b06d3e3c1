"""The steps that the scripts put together: start, train, evaluate, predict, finish."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from torch.distributed.elastic.multiprocessing.errors import record
from transformers import PreTrainedTokenizerBase, set_seed

from common.durable import tidy
from common.log import console, setup_logging
from models.tagger import Tagger
from tools.argument_checks import idle_in_this_run
from tools.arguments import NerArguments, require
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
from tools.precision import set_precision
from tools.predict import PREDICTIONS_FILE, predict
from tools.run_folder import (
    checkpoint_folders,
    lock_run_folder,
    prepare_output_dir,
    save_environment,
    unlock_run_folder,
)
from tools.train import TRAIN_RESULTS_FILE, train

logger = logging.getLogger(__name__)
_LAUNCHER_LOOKS = 2.0  # seconds in which a launcher looks at its processes for certain
_RUN_FILES = {
    "model.safetensors": "weights",
    "config.json": "config and labels",
    "training_args.json": "arguments",
    "environment.json": "versions and machine",
    "run.log": "log",
    "tensorboard": "curves",
    TRAIN_RESULTS_FILE: "steps, loss, speed",
    "eval_results.json": "scores of dev",
    "eval_documents.jsonl": "entities of dev, gold and predicted",
    "test_results.json": "scores of test",
    "test_documents.jsonl": "entities of test, gold and predicted",
    PREDICTIONS_FILE: "predictions of test",
    "report.html": "report",
}


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


def start_run(args: NerArguments, head: type[Tagger]) -> None:
    """Checks the arguments and what is to be applied, joins the other processes, makes the folder of the run, seeds."""
    require(args, "task_name", "output_dir")
    require(args, *(["model_name_or_path"] if args.do_train else []))
    if not (args.dataset_name or args.data_dir or args.train_file or args.dev_file or args.test_file):
        require(args, "data_dir")
    if not (args.do_train or args.do_eval or args.do_predict):
        raise ValueError("nothing to do: add --do_train, --do_eval or --do_predict")
    if args.resume_from_checkpoint and not args.do_train:
        raise ValueError("--resume_from_checkpoint resumes a training: add --do_train")
    setup_devices(args)
    set_precision(args)
    check_splits(args)  # before an earlier run is cleared away
    run_on_main(lambda: _lock_and_tidy(Path(args.output_dir), may_be_new=args.do_train))
    checkpoint = checkpoint_to_resume(args) if args.do_train else None
    if not args.do_train:
        check_source(args.output_dir, do_train=False, from_scratch=False)
    if checkpoint or not args.do_train:
        check_head(checkpoint or Path(args.output_dir), head)
    folder = prepare_output_dir(args, resumes=is_in_run(checkpoint, args))
    setup_logging(folder, anew=args.do_train and checkpoint is None, is_main=is_main())
    for idle in idle_in_this_run(args, world_size()) if is_main() else ():
        logger.warning(idle)
    if args.do_train:
        run_on_main(lambda: save_environment(folder, args))
    set_seed(args.seed)  # the same on all ranks, so that new weights are
    logger.info("Device %s, %d GPUs in this process", args.device, args.n_gpu)


def _lock_and_tidy(folder: Path, may_be_new: bool) -> None:
    if may_be_new or folder.is_dir():  # a mistyped folder is not created
        lock_run_folder(folder)
        tidy(folder)


def train_and_save(args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> None:
    """Trains and writes the model to ``output_dir``."""
    dataset = load_and_cache_examples(args, args.task_name, tokenizer, "train")
    steps, loss = train(args, dataset, model, tokenizer)
    publish_model(Path(args.output_dir), args, model, tokenizer)
    logger.info("Mean loss of %d steps %.4f; model written to %s", steps, loss, args.output_dir)


def finish_run(args: NerArguments) -> None:
    """Says where everything is."""
    if is_main():
        table = Table("what", "where", title=f"Run {args.output_dir}")
        for path in sorted(Path(args.output_dir).iterdir()):
            if path.name in _RUN_FILES:
                table.add_row(_RUN_FILES[path.name], str(path))
        console().print(table)


def evaluate_run(args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Scores dev with the final model, and with ``--eval_all_checkpoints`` with every checkpoint."""
    results = {}
    for prefix, checkpoint in _models(args, model, checkpoints="all" if args.eval_all_checkpoints else ""):
        results[prefix] = evaluate(args, checkpoint, tokenizer, prefix)
    return results


def predict_run(args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Predicts test with the final model, and with the checkpoints of ``--predict_checkpoints``."""
    results = {}
    for prefix, checkpoint in _models(args, model, checkpoints=args.predict_checkpoints):
        results[prefix] = predict(args, checkpoint, tokenizer, prefix)
    return results


def _models(args: NerArguments, model: Tagger, checkpoints: str) -> Iterator[tuple[str, Tagger]]:
    """The model of the run, then those of its checkpoints, each with the folder for its results."""
    names = run_on_main(lambda: [folder.name for folder in checkpoint_folders(Path(args.output_dir))])
    wanted = names if checkpoints in ("", "all") else [f"checkpoint-{checkpoints}"]
    if not set(wanted) <= set(names):
        raise ValueError(f"{args.output_dir} has no {wanted[0]}; there are {', '.join(names) or 'no checkpoints'}")
    if checkpoints == "all" and not names and is_main():
        logger.warning("%s has no checkpoints beside its model; --save_steps keeps some", args.output_dir)
    folders = [Path(args.output_dir, name) for name in wanted if checkpoints]
    for folder in folders:
        check_head(folder, type(model))  # before anything is scored
    yield "", model
    applying = copy(args)
    applying.do_train = False
    for folder in folders:
        yield folder.name, load_model_and_tokenizer(applying, type(model), source=str(folder))[0]
