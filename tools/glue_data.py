"""A split of a GLUE task: its features for the model, and its predictions for the server."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from processors.glue_reader import GlueCorpus
from processors.glue_tasks import GlueTask
from processors.submissions import glue_lines
from processors.text_features import TextDataset, open_or_build_texts
from tools.arguments import NerArguments
from tools.distributed import is_main, main_process_first

logger = logging.getLogger(__name__)


def open_texts(
    args: NerArguments, corpus: GlueCorpus, split: str, tokenizer: PreTrainedTokenizerBase, alone: bool = False
) -> TextDataset:
    """The features of a split, built by rank 0 while the others wait, or by each process for itself, and cached."""
    texts = corpus.read(split)
    with nullcontext() if alone else main_process_first():
        dataset = open_or_build_texts(
            texts,
            tokenizer,
            args.train_max_seq_length,
            Path(args.feature_cache_dir),
            overwrite=args.overwrite_cache and alone,
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
