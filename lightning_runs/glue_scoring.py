"""Evaluate and predict a GLUE task."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_runs.glue_classifier import takes_token_types
from lightning_runs.glue_features import TextDataset, open_or_build_texts
from lightning_runs.glue_reader import GlueCorpus, GlueTask
from tools.decoding import GatheredScores, shared_batches
from tools.distributed import is_main, main_process_first
from tools.run import Run
from tools.run_folder import write_json

logger = logging.getLogger(__name__)
_SCORES = (0.0, 5.0)  # range of STS-B


def open_texts(run: Run, corpus: GlueCorpus, split: str, tokenizer: PreTrainedTokenizerBase) -> TextDataset:
    """Load the features of a split. Rank 0 builds and caches them while the others wait."""
    texts, key = corpus.read(split), ("texts", split)
    with main_process_first():
        dataset = open_or_build_texts(
            texts,
            tokenizer,
            run.train_max_seq_length,
            Path(run.settings.data.feature_cache_dir),
            overwrite=run.settings.data.overwrite_cache and is_main() and key not in run.opened,
        )
    if is_main() and key not in run.opened:
        logger.info("%s: %d texts or pairs, %d of them truncated", split, len(dataset), dataset.truncated)
        if texts.broken_lines:
            message = "%s: skipped %d lines with a wrong number of cells, the first on line %d"
            logger.warning(message, texts.source, len(texts.broken_lines), texts.broken_lines[0])
    run.opened.add(key)
    return dataset


@torch.no_grad()
def text_logits(run: Run, model: PreTrainedModel, dataset: TextDataset) -> Tensor:
    """Compute the scores of all texts, ``(N, C)``. Each rank computes a share and gets the whole result."""
    model.eval()
    counts, columns = np.ones(len(dataset), np.int32), len(model.config.id2label or {})
    found = GatheredScores(counts, columns, run.device)
    for batch in shared_batches(dataset.lengths, run.settings.optimisation.per_gpu_eval_batch_size):
        inputs = model_inputs(model, dataset.collate([dataset[int(index)] for index in batch]))
        inputs = {name: tensor.to(run.device, non_blocking=True) for name, tensor in inputs.items()}
        with run.precision.autocast():
            found.add(batch, model(**inputs).logits)
    return found.over_ranks()


def model_inputs(model: PreTrainedModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select the inputs that the model accepts: RoBERTa and DistilBERT do not accept token types."""
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_token_types(model) else [])]
    return {name: batch[name] for name in names}


def text_losses(task: GlueTask, logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss per text in float32: squared error for a regression, else cross-entropy; 0 without a label.

    Args:
        logits, labels: ``(B, C)`` and ``(B,)``; NaN means no label.

    Returns:
        Losses ``(B,)``.
    """
    known = labels.nan_to_num()  # (B,)
    if task.is_regression:
        losses = F.mse_loss(logits.float().squeeze(-1), known, reduction="none")  # (B,)
    else:
        losses = F.cross_entropy(logits.float(), known.long(), reduction="none")  # (B,)
    return losses.masked_fill(labels.isnan(), 0)


def chosen(task: GlueTask, logits: Tensor) -> Tensor:
    """Predicted scores or class ids: ``(N, C) -> (N,)``."""
    return logits.squeeze(-1) if task.is_regression else logits.argmax(-1)


def score_texts(run: Run, task: GlueTask, model: PreTrainedModel, dataset: TextDataset) -> dict[str, float]:
    """Compute the metrics of a labelled split, and ``loss``, the mean per text."""
    logits = text_logits(run, model, dataset)
    gold = torch.from_numpy(np.array(dataset.labels)).to(logits.device)  # (N,)
    found = chosen(task, logits).double().cpu().numpy()
    metrics = glue_scores(task.folder, gold.double().cpu().numpy(), found)
    return {"loss": float(text_losses(task, logits, gold).mean()), **metrics}


def score_dev_splits(
    run: Run, corpus: GlueCorpus, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """Compute the metrics of dev and, with the prefix ``dev_mismatched``, of MNLI's second dev split."""
    results: dict[str, float] = {}
    for split in corpus.task.splits_like("dev"):
        if corpus.has(split):
            found = score_texts(run, corpus.task, model, open_texts(run, corpus, split, tokenizer))
            results |= {name if split == "dev" else f"{split}_{name}": value for name, value in found.items()}
    return results


def evaluate_texts(
    run: Run, corpus: GlueCorpus, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """Score dev, and write ``eval_results.json`` and ``.txt``."""
    results = score_dev_splits(run, corpus, model, tokenizer)
    if is_main():
        write_json(run.folder.results("dev"), results)
        lines = "".join(f"{name} = {value}\n" for name, value in results.items())
        run.folder.results("dev", "txt").write_text(lines, "utf-8")
    logger.info("dev: %s", ", ".join(f"{name} {value:.4f}" for name, value in results.items()))
    return results


def predict_texts(run: Run, corpus: GlueCorpus, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the predictions of the test splits to ``submission``, in the format of the GLUE server."""
    task = corpus.task
    for split in task.splits_like("test"):
        if corpus.has(split):
            found = chosen(task, text_logits(run, model, open_texts(run, corpus, split, tokenizer))).tolist()
            path = run.folder.submissions / f"{task.submission_name(split)}.tsv"
            if is_main():
                path.parent.mkdir(exist_ok=True)
                path.write_text("\n".join(glue_lines(task, found)) + "\n", "utf-8")
            logger.info("Submission of %d predictions written to %s", len(found), path)


Values = NDArray[np.float64]


def accuracy(gold: Values, predicted: Values) -> dict[str, float]:
    return {"acc": float(accuracy_score(gold, predicted))}


def accuracy_and_f1(gold: Values, predicted: Values) -> dict[str, float]:
    """Accuracy, and F1 of class 1 (paraphrases)."""
    acc, f1 = accuracy(gold, predicted)["acc"], float(f1_score(gold, predicted, zero_division=0))
    return {"acc": acc, "f1": f1, "acc_and_f1": (acc + f1) / 2}


def matthews(gold: Values, predicted: Values) -> dict[str, float]:
    return {"mcc": float(matthews_corrcoef(gold, predicted))}


def correlations(gold: Values, predicted: Values) -> dict[str, float]:
    """Pearson and Spearman correlations; 0 if one side is constant, where they are undefined."""
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return {"pearson": 0.0, "spearmanr": 0.0, "corr": 0.0}
    pearson, spearman = float(pearsonr(gold, predicted).statistic), float(spearmanr(gold, predicted).statistic)
    return {"pearson": pearson, "spearmanr": spearman, "corr": (pearson + spearman) / 2}


METRICS = ("loss", "acc", "f1", "acc_and_f1", "mcc", "pearson", "spearmanr", "corr")  # of all tasks
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
    """Compute the metrics of a task, and their mean if there are two.

    Args:
        gold, predicted: class ids or scores, ``(N,)``.
    """
    return _METRICS[task.lower()](gold, predicted)


def glue_lines(task: GlueTask, predictions: Sequence[float]) -> list[str]:
    """Lines of a submission: a header, then the index of each text with its class or score."""
    if task.is_regression:
        low, high = _SCORES
        values = [f"{min(max(score, low), high):.3f}" for score in predictions]
    else:
        values = [task.classes[int(index)] for index in predictions]
    return ["index\tprediction", *(f"{number}\t{value}" for number, value in enumerate(values))]
