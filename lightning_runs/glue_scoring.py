"""A split of a GLUE task: its features for the model, and its predictions for the server."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import PreTrainedTokenizerBase

from lightning_runs.glue_features import TextDataset, open_or_build_texts
from lightning_runs.glue_reader import GlueCorpus
from lightning_runs.glue_tasks import GlueTask
from tools.distributed import is_main, main_process_first
from tools.run import Run

logger = logging.getLogger(__name__)
_SCORES = (0.0, 5.0)  # of STS-B


def open_texts(
    run: Run, corpus: GlueCorpus, split: str, tokenizer: PreTrainedTokenizerBase, alone: bool = False
) -> TextDataset:
    """The features of a split, built by rank 0 while the others wait, or by each process for itself, and cached."""
    texts = corpus.read(split)
    with nullcontext() if alone else main_process_first():
        dataset = open_or_build_texts(
            texts,
            tokenizer,
            run.train_max_seq_length,
            Path(run.settings.data.feature_cache_dir),
            overwrite=run.settings.data.overwrite_cache and alone,
        )
    if is_main() and not alone:
        logger.info(
            "%s: %d texts or pairs, %d of them cut since they are too long", split, len(dataset), dataset.truncated
        )
        if texts.broken_lines:
            message = "%s: %d lines have not as many cells as there are columns, the first on line %d: left out"
            logger.warning(message, texts.source, len(texts.broken_lines), texts.broken_lines[0])
    return dataset


def write_submission(folder: Path, task: GlueTask, split: str, predictions: Sequence[float]) -> None:
    """Writes classes, or scores, in the form that GLUE's server takes; rank 0 only."""
    if not is_main():
        return
    path = folder / "submission" / f"{task.submission_name(split)}.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(glue_lines(task, predictions)) + "\n", "utf-8")
    logger.info("Submission of %d predictions written to %s", len(predictions), path)


Values = NDArray[np.float64]


def accuracy(gold: Values, predicted: Values) -> dict[str, float]:
    return {"acc": float(accuracy_score(gold, predicted))}


def accuracy_and_f1(gold: Values, predicted: Values) -> dict[str, float]:
    """F1 is of class 1: that the two texts mean the same."""
    acc, f1 = accuracy(gold, predicted)["acc"], float(f1_score(gold, predicted, zero_division=0))
    return {"acc": acc, "f1": f1, "acc_and_f1": (acc + f1) / 2}


def matthews(gold: Values, predicted: Values) -> dict[str, float]:
    return {"mcc": float(matthews_corrcoef(gold, predicted))}


def correlations(gold: Values, predicted: Values) -> dict[str, float]:
    """Pearson's and Spearman's; 0 where one side is constant, so that none is defined."""
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return {"pearson": 0.0, "spearmanr": 0.0, "corr": 0.0}
    pearson, spearman = float(pearsonr(gold, predicted).statistic), float(spearmanr(gold, predicted).statistic)
    return {"pearson": pearson, "spearmanr": spearman, "corr": (pearson + spearman) / 2}


_METRICS: dict[str, Callable[[Values, Values], dict[str, float]]] = {
    "cola": matthews,
    "sst-2": accuracy,
    "mrpc": accuracy_and_f1,
    "sts-b": correlations,
    "qqp": accuracy_and_f1,
    "mnli": accuracy,
    "qnli": accuracy,
    "rte": accuracy,
    "wnli": accuracy,
    "ax": matthews,
}


def glue_scores(task: str, gold: Values, predicted: Values) -> dict[str, float]:
    """The metrics of a task: ``acc``, ``f1``, ``mcc``, ``pearson``, ``spearmanr``, and their mean where there are two.

    Args:
        gold, predicted: ids of classes, or scores, ``(N,)``.
    """
    return _METRICS[task.lower()](gold, predicted)


def glue_lines(task: GlueTask, predictions: Sequence[float]) -> list[str]:
    """The lines of a submission to GLUE: a header, then number and class, or score, of each text."""
    if task.is_regression:
        low, high = _SCORES
        values = [f"{min(max(score, low), high):.3f}" for score in predictions]
    else:
        values = [task.classes[int(index)] for index in predictions]
    return ["index\tprediction", *(f"{number}\t{value}" for number, value in enumerate(values))]
