"""A text classifier for GLUE: load it from an encoder or a trained model, compute its scores, evaluate and predict."""

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightning_runs.glue_data import GlueCorpus, GlueTask, TextDataset, open_or_build_texts
from tools.decoding import shared_batches
from tools.distributed import is_main, main_process_first, sum_over_ranks
from tools.heads import is_encoder, read_model
from tools.loading import check_source, check_vocabulary, compile_model, load_config, load_tokenizer, positions_of
from tools.run import Run
from tools.run_folder import write_json

logger = logging.getLogger(__name__)
_SCORES = (0.0, 5.0)  # range of STS-B


def load_classifier_and_tokenizer(
    run: Run,
    classes: Sequence[str],
    source: str | None = None,
    adapt_config: Callable[[PreTrainedConfig], None] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the classifier that the run trains or applies, on its device, and its tokenizer.

    Args:
        run: loads the encoder or classifier of ``model_name_or_path`` when training, else the classifier of
            ``output_dir``.
        classes: names of the classes; empty for a regression.
        source: folder to load instead.
        adapt_config: function that changes the encoder's config, for example its dropout.

    Raises:
        ValueError: weights are missing without ``from_scratch``, or model, tokenizer and classes do not match.
    """
    settings, do_train = run.settings.model, run.settings.actions.do_train
    source = source or (settings.model_name_or_path if do_train else run.settings.actions.output_dir)
    check_source(source, do_train, settings.from_scratch)
    config = load_config(settings, source)
    former, held = dict(config.id2label or {}), (config.architectures or ["no head"])[0]
    is_classifier = held.endswith("ForSequenceClassification")
    if not do_train and not is_classifier:
        raise ValueError(f"{source} holds {held}, not a text classifier")
    if adapt_config is not None:
        adapt_config(config)
    config.id2label = dict(enumerate(classes or ["LABEL_0"]))
    config.label2id = {name: index for index, name in config.id2label.items()}
    config.problem_type = "single_label_classification" if classes else "regression"
    if not do_train and former != config.id2label:
        raise ValueError(f"{source} was trained for {', '.join(former.values())}, not for {', '.join(classes)}")
    tokenizer = load_tokenizer(settings, source, config)
    check_vocabulary(tokenizer, config)
    if do_train and settings.from_scratch:
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    else:
        model = read_model(AutoModelForSequenceClassification, source, config, do_train, settings.cache_dir or None)
    if config.model_type == "xlnet":
        unused = model.get_parameter("transformer.mask_emb")  # pretraining only; DDP would wait for its gradient
        unused.requires_grad_(False)
    if do_train and not (settings.from_scratch or is_classifier or is_encoder(config.architectures, Path(source))):
        logger.info("%s holds %s: using its encoder with a new head", source, held)
        outside = [part for name, part in model.named_children() if name != model.base_model_prefix]
        for module in (module for part in outside for module in part.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
            nn.init.zeros_(module.bias)
    nn.Module.to(model, run.device)
    compile_model(run.settings.machine, run.n_gpu, model)
    return model, tokenizer


def fitted_run(run: Run, model: PreTrainedModel) -> Run:
    """Copy of the run with window lengths limited to the encoder's positions."""
    wanted = run.train_max_seq_length
    if 0 < (positions := positions_of(model)) < wanted:
        logger.info("max_seq_length %d exceeds the encoder's %d positions: reduced", wanted, positions)
        return replace(run, train_max_seq_length=positions)
    return run


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
    scores = torch.zeros(len(dataset), len(model.config.id2label or {}), device=run.device)  # (N, C)
    for batch in shared_batches(dataset.lengths, run.settings.optimisation.per_gpu_eval_batch_size):
        inputs = model_inputs(model, dataset.collate([dataset[int(index)] for index in batch]))
        inputs = {name: tensor.to(run.device, non_blocking=True) for name, tensor in inputs.items()}
        with run.precision.autocast():
            scores[torch.from_numpy(batch)] = model(**inputs).logits.float()  # (B, C)
    return sum_over_ranks(scores)


def model_inputs(model: PreTrainedModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select the inputs that the model accepts: RoBERTa and DistilBERT do not accept token types."""
    accepted = inspect.signature(model.forward).parameters
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in accepted}


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


def score_dev_splits(
    run: Run, corpus: GlueCorpus, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """Compute ``loss``, the mean per text, and the metrics of dev, and those of ``dev_mismatched`` with this prefix."""
    results: dict[str, float] = {}
    for split in corpus.task.splits_like("dev"):
        if corpus.has(split):
            dataset = open_texts(run, corpus, split, tokenizer)
            logits = text_logits(run, model, dataset)
            gold = torch.from_numpy(np.array(dataset.labels)).to(logits.device)  # (N,)
            predicted = chosen(corpus.task, logits).double().cpu().numpy()
            found = {"loss": float(text_losses(corpus.task, logits, gold).mean())}
            found |= glue_scores(corpus.task.folder, gold.double().cpu().numpy(), predicted)
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
    **dict.fromkeys(("cola", "ax"), matthews),
    **dict.fromkeys(("mrpc", "qqp"), accuracy_and_f1),
    "sts-b": correlations,
}


def glue_scores(task: str, gold: Values, predicted: Values) -> dict[str, float]:
    """Compute the metrics of a task, and their mean if there are two.

    Args:
        gold, predicted: class ids or scores, ``(N,)``.
    """
    return _METRICS.get(task.lower(), accuracy)(gold, predicted)


def glue_lines(task: GlueTask, predictions: Sequence[float]) -> list[str]:
    """Lines of a submission: a header, then the index of each text with its class or score."""
    if task.is_regression:
        low, high = _SCORES
        values = [f"{min(max(score, low), high):.3f}" for score in predictions]
    else:
        values = [task.classes[int(index)] for index in predictions]
    return ["index\tprediction", *(f"{number}\t{value}" for number, value in enumerate(values))]
