"""The steps that the scripts put together: start, train, evaluate, predict, finish."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed

from models.tagger import Tagger
from tools.arguments import NerArguments, require
from tools.data import load_and_cache_examples
from tools.distributed import barrier, is_main, leave_process_group, setup_devices
from tools.evaluate import evaluate
from tools.log import setup_logging
from tools.precision import uses_apex
from tools.predict import predict
from tools.run_folder import checkpoint_folders, prepare_output_dir, save_environment, save_model_folder
from tools.train import train

logger = logging.getLogger(__name__)


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's ``main``; what is wrong with arguments or data ends it with a message, not a traceback."""
    try:
        main()
    except (ValueError, OSError) as error:
        logger.debug("Where it happened:", exc_info=True)
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")
    finally:
        leave_process_group()


def start_run(args: NerArguments) -> None:
    """Checks the arguments, joins the other processes, makes the folder of the run, seeds."""
    require(args, "task_name", "output_dir")
    require(args, *(["model_name_or_path"] if args.do_train else []))
    if not (args.dataset_name or args.data_dir or args.train_file or args.dev_file or args.test_file):
        require(args, "data_dir")
    if not (args.do_train or args.do_eval or args.do_predict):
        raise ValueError("nothing to do: add --do_train, --do_eval or --do_predict")
    setup_devices(args)
    uses_apex(args)
    folder = prepare_output_dir(args)
    barrier()
    setup_logging(folder)
    if is_main():
        save_environment(folder, args)
    set_seed(args.seed)  # the same on all ranks, so that new weights are
    logger.info("Device %s, %d GPUs in this process", args.device, args.n_gpu)


def train_and_save(args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> None:
    """Trains and writes the model to ``output_dir``."""
    start = time.perf_counter()
    dataset = load_and_cache_examples(args, args.task_name, tokenizer, "train")
    steps, loss = train(args, dataset, model, tokenizer)
    if is_main():
        save_model_folder(Path(args.output_dir), args, model, tokenizer)
    barrier()
    seconds = time.perf_counter() - start
    logger.info("Trained %d steps in %.0f s, mean loss %.4f; model in %s", steps, seconds, loss, args.output_dir)


def evaluate_run(args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Scores dev with the final model, and with ``--eval_all_checkpoints`` with every checkpoint."""
    results = {}
    for prefix, checkpoint in _models(args, model, all_checkpoints=args.eval_all_checkpoints):
        results[prefix] = evaluate(args, checkpoint, tokenizer, prefix)
    return results


def predict_run(args: NerArguments, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Predicts test with the final model, and with ``--predict_checkpoints`` with every checkpoint."""
    results = {}
    for prefix, checkpoint in _models(args, model, all_checkpoints=args.predict_checkpoints):
        results[prefix] = predict(args, checkpoint, tokenizer, prefix)
    return results


def _models(args: NerArguments, model: Tagger, all_checkpoints: bool) -> Iterator[tuple[str, Tagger]]:
    """The model of the run, then those of its checkpoints, each with the folder for its results."""
    yield "", nn.Module.to(model, args.device)
    if all_checkpoints:
        for folder in checkpoint_folders(Path(args.output_dir)):
            yield folder.name, nn.Module.to(type(model).from_pretrained(folder), args.device)
