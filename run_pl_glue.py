"""One or two texts to a class or a score: the tasks of GLUE with a BERT-family encoder, under PyTorch Lightning.

bash scripts/run_pl_glue.sh                                       # the bundled sample
python run_pl_glue.py --help
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from common.command_line import CommandLine
from common.options import NoOptions
from lightning_runs.flags import as_settings, set_dropouts
from lightning_runs.glue_classifier import fitting_length, load_classifier_and_tokenizer, takes_token_types
from lightning_runs.glue_features import TextDataset
from lightning_runs.glue_reader import GlueCorpus
from lightning_runs.glue_scoring import glue_scores, open_texts, write_submission
from lightning_runs.glue_tasks import GLUE_TASKS, glue_task
from lightning_runs.module import (
    BaseTransformer,
    add_generic_args,
    best_checkpoint,
    generic_train,
    predict_best,
    start_lightning_run,
    test_best,
)
from tools.recipe import run_script
from tools.run import Run


class GLUETransformer(BaseTransformer):
    """A classifier, or a regression, of texts or pairs of them for one of `GLUE_TASKS`."""

    mode = "sequence-classification"

    def __init__(self, hparams: Namespace | Mapping[str, Any]) -> None:
        flags = hparams if isinstance(hparams, Namespace) else Namespace(**hparams)
        task = glue_task(flags.task)
        settings = as_settings(flags, NoOptions, task_name=flags.task.lower(), dataset_name=flags.dataset_name)
        trains = flags.do_train or best_checkpoint(Path(flags.output_dir)) is not None
        model, tokenizer = load_classifier_and_tokenizer(
            settings.model, task.classes, trains, partial(set_dropouts, flags)
        )
        settings = settings.replace(train_max_seq_length=fitting_length(flags.max_seq_length, model))
        super().__init__(hparams, Run.of(settings), model, tokenizer)
        self.task = task
        self.corpus = GlueCorpus(task, flags.data_dir, flags.dataset_name, flags.feature_cache_dir)
        self._inputs = ("input_ids", "attention_mask", *(["token_type_ids"] if takes_token_types(model) else []))

    def splits(self, stage: str) -> list[str]:
        """Dev is also what is tested: the labels of test are not public."""
        if stage == "fit":
            return ["train", "dev"]
        wanted = self.task.splits_like("dev" if stage == "test" else "test")
        return [split for split in wanted if self.corpus.has(split)]

    @property
    def traits(self) -> dict[str, str]:
        """None for a task without training data: it is given another one's model."""
        return {"task": self.run.settings.data.task_name} if "train" in self.task.files else {}

    def check_split(self, split: str) -> None:
        self.corpus.read(split)

    def open_split(self, split: str, alone: bool = False) -> TextDataset:
        return open_texts(self.run, self.corpus, split, self.tokenizer, alone)

    def unit_counts(self, dataset: TextDataset) -> NDArray[np.int32]:
        return np.ones(len(dataset), np.int32)

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model(**{name: batch[name] for name in self._inputs}).logits  # (B, C)

    def forward(self, batch: dict[str, Any]) -> SequenceClassifierOutput:
        logits = self.logits(batch)
        loss = self._losses(logits, batch["labels"]).sum() / batch["num_items_in_batch"]
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of each of B texts, in float32: a score's squared error, or a class's cross-entropy; 0 without a label."""
        known = labels.nan_to_num()  # (B,)
        if self.task.is_regression:
            losses = F.mse_loss(logits.float().squeeze(-1), known, reduction="none")  # (B,)
        else:
            losses = F.cross_entropy(logits.float(), known.long(), reduction="none")  # (B,)
        return losses.masked_fill(labels.isnan(), 0)

    def score(self, split: str, dataset: TextDataset, scores: Tensor, stage: str) -> dict[str, float]:
        gold = torch.from_numpy(np.array(dataset.labels)).to(scores.device)  # (N,)
        found = scores.squeeze(-1) if self.task.is_regression else scores.argmax(-1)  # (N,)
        if stage == "predict":
            write_submission(self.output_dir, self.task, split, found.tolist())
        if gold.isnan().any():
            return {}
        metrics = glue_scores(
            self.run.settings.data.task_name, gold.double().cpu().numpy(), found.double().cpu().numpy()
        )
        return {"loss": float(self._losses(scores, gold).mean()), **metrics}

    @staticmethod
    def add_model_specific_args(parser: ArgumentParser) -> None:
        BaseTransformer.add_model_specific_args(parser)
        flag = parser.add_argument_group("task").add_argument
        flag("--task", required=True, help=f"one of {', '.join(GLUE_TASKS)}")
        flag("--dataset_name", default="", help="a Hugging Face data set (name, or folder) instead of data_dir")


def main() -> None:
    parser = CommandLine(description=__doc__.partition("\n")[0])
    add_generic_args(parser)
    GLUETransformer.add_model_specific_args(parser)
    args = parser.parse_args()
    if not args.output_dir:
        args.output_dir = f"results/{args.task}_{time.strftime('%Y%m%d_%H%M%S')}"
        sys.argv += ["--output_dir", args.output_dir]  # the processes that Lightning starts use the same
    glue_task(args.task)  # refuses an unknown one
    start_lightning_run(args, ["loss", *glue_scores(args.task, np.arange(2.0), np.arange(2.0))])
    model = GLUETransformer(args)
    trainer = generic_train(model, args)
    if args.do_predict:
        test_best(model, trainer)
        predict_best(model, trainer)


if __name__ == "__main__":
    run_script(main)
