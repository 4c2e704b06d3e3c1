"""The training loop: the same on a CPU, one GPU, DataParallel and torch.distributed."""

import logging
from contextlib import closing
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from callbacks import TrainState
from models.tagger import Tagger
from processors.feature_dataset import FeatureDataset
from tools.arguments import NerArguments
from tools.distributed import run_on_main, send_from_main
from tools.interruption import Interrupted, watch_for_interruption
from tools.run_folder import write_json
from tools.training import Training
from tools.weights import restore_weights

logger = logging.getLogger(__name__)
TRAIN_RESULTS_FILE = "train_results.json"


def train(
    args: NerArguments, train_dataset: FeatureDataset, model: Tagger, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, float]:
    """Fine-tunes the model in place.

    The loss of a step is the mean over all words of all its batches, whatever the number of processes and
    accumulation rounds. Where dev is scored on the way, the model ends with the best weights seen. With
    ``args.resume_from_checkpoint`` the training goes on as if it had never stopped.

    Returns:
        The number of optimiser steps, and the mean loss a word over the whole training.

    Raises:
        Interrupted: SIGTERM or SIGUSR1 came; a checkpoint is written.
        FloatingPointError: too many steps in a row were left out, since they were not finite.
    """
    training = Training(args, train_dataset, model, tokenizer)
    training.resume()
    state, callbacks, checkpoints = training.state, training.callbacks, training.checkpoints

    with watch_for_interruption() as interruption, closing(callbacks):
        callbacks.on_train_begin(state)
        if _is_due(args.logging_steps, state):
            training.evaluate()  # unless that was done before the interruption
        for step in training.remaining_steps():
            training.learn(step)
            if _is_due(args.log_loss_steps, state):
                training.log()
            interrupted = interruption.seen_by_any()
            if _is_due(args.logging_steps, state) and not interrupted:
                training.evaluate()
            if checkpoints.is_due(state) or interrupted:
                checkpoints.save(state)
            if interrupted:
                logger.info("Stopped after step %d; go on with --resume_from_checkpoint auto", state.step)
                raise Interrupted
        if training.meter.has_news:
            training.log()  # a callback ended the training between two looks
        callbacks.on_train_end(state)

    if checkpoints.has_best:
        _restore_best(checkpoints.best_folder, model)
    results = training.results()
    logger.info(
        "Trained %(steps)d steps: %(words_per_second).0f words/s in %(seconds).0f s without evaluation", results
    )
    run_on_main(lambda: write_json(Path(args.output_dir, TRAIN_RESULTS_FILE), results))
    return results["steps"], results["loss"]


def _is_due(every: int, state: TrainState) -> bool:
    """Whether something is to be done after this step: every so many, each epoch for -1, and in the end."""
    interval = every if every > 0 else state.steps_per_epoch
    return state.step > 0 and (state.step % interval == 0 or state.step == state.total_steps or state.should_stop)


def _restore_best(folder: Path, model: Tagger) -> None:
    """Rank 0 reads the best weights that it wrote, and sends them to the others."""
    run_on_main(lambda: restore_weights(model, folder))
    send_from_main(model.state_dict().values())
