"""GLUE tasks (classification or regression of one or two texts) with a BERT-family encoder and PyTorch Lightning.

bash scripts/run_pl_glue.sh                                       # the bundled sample
python run_pl_glue.py --help
"""

import sys
import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from callbacks import TrainState
from common.options import option
from lightning_runs import glue_model
from lightning_runs.flags import DEFAULTS, differing_defaults, parse_lightning
from lightning_runs.glue_data import GLUE_TASKS, GlueCorpus, TextDataset, glue_task
from lightning_runs.module import BaseTransformer, generic_train
from lightning_runs.trainer import build_trainer, source_of, start_run
from models.word_states import WordStateOptions
from tools.distributed import main_process_first
from tools.recipe import finish_run
from tools.run import Run
from tools.script import run_script
from tools.settings import Settings
from tools.training_settings import LoggingSettings

_OF_FILES = "the files and columns of GLUE are fixed"
_OF_WORDS = "it applies to words, but GLUE labels are for whole texts"
REFUSED = {
    **dict.fromkeys(("task_name", "labels", "train_file", "dev_file", "test_file", "offset_unit"), _OF_FILES),
    **dict.fromkeys(("tag_column", "word_column"), _OF_FILES),
    **dict.fromkeys(("word_unit", "span_edges", "markup", "head", "casing", "rdrop_alpha", "teacher"), _OF_WORDS),
    **dict.fromkeys((*(one.name for one in fields(WordStateOptions)), "bilstm_learning_rate"), _OF_WORDS),
    **dict.fromkeys(("document_context", "context_size", "context_dropout"), _OF_WORDS),
    **dict.fromkeys(
        ("eval_max_seq_length", "window_overlap"), "texts that are too long are truncated; see --max_seq_length"
    ),
}


@dataclass(frozen=True)
class GlueOptions:
    """Options of this script only."""

    task: str = option("", f"one of {', '.join(GLUE_TASKS)}", common=True)


@dataclass(frozen=True)
class GlueLogging(LoggingSettings):
    """Logging settings with the metrics of GLUE."""

    metric_for_best_model: str = option(
        "loss", "dev score that selects the best model; for loss, lower is better", glue_model.METRICS,
        needs={"evaluate_during_training": [True]},
    )  # fmt: skip


class GLUETransformer(BaseTransformer):
    """Lightning module for classification or regression of texts or text pairs."""

    def __init__(
        self, run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: GlueCorpus
    ) -> None:
        super().__init__(run, model, tokenizer)
        self.corpus = corpus

    def open_train(self) -> tuple[TextDataset, NDArray[np.int32]]:
        dataset = glue_model.open_texts(self.run, self.corpus, "train", self.tokenizer)
        return dataset, np.ones(len(dataset), np.int32)

    def describe(self, index: int) -> dict[str, Any]:
        features = self._dataset[index]
        return {"tokens": self.tokenizer.convert_ids_to_tokens(features["input_ids"]), "label": features["labels"]}

    def forward(self, batch: dict[str, Any]) -> SequenceClassifierOutput:
        logits = self.model(**glue_model.model_inputs(self.model, batch)).logits  # (B, C)
        loss = glue_model.text_losses(self.corpus.task, logits, batch["labels"]).sum() / batch["num_items_in_batch"]
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def score_dev(self, state: TrainState) -> None:
        if scores := glue_model.score_dev_splits(self.run, self.corpus, self.model, self.tokenizer):
            state.metrics, state.evaluated_step = scores, state.step


def main() -> None:
    settings, options, own = parse_lightning(
        Settings(logging=GlueLogging()).replace(**DEFAULTS), GlueOptions, __doc__, REFUSED
    )
    task = glue_task(own.task)
    if not settings.actions.output_dir:
        settings = settings.replace(output_dir=f"results/{own.task}_{time.strftime('%Y%m%d_%H%M%S')}")
        sys.argv += ["--output_dir", settings.actions.output_dir]  # for the processes that Lightning starts
    settings = settings.replace(task_name=own.task.lower())
    metric, actions, data = settings.logging.metric_for_best_model, settings.actions, settings.data
    metrics = ("loss", *glue_model.glue_scores(own.task, np.arange(2.0), np.arange(2.0)))
    if metric not in metrics:
        raise ValueError(
            f"--metric_for_best_model {metric} is none of {', '.join(metrics)}, the scores of {task.folder}"
        )
    corpus = GlueCorpus(task, data.data_dir, data.dataset_name, data.feature_cache_dir)

    def check_splits(run: Run) -> None:
        with main_process_first():
            for split, needed in {"train": actions.do_train, "dev": actions.do_eval}.items():
                if needed:
                    corpus.read(split)

    trainer = build_trainer(settings, options)
    run = start_run(settings, trainer, differing_defaults(settings, DEFAULTS), check_splits)
    model, tokenizer = glue_model.load_classifier_and_tokenizer(run, task.classes, source_of(run), options.set_dropouts)
    run = glue_model.fitted_run(run, model)
    if actions.do_train:
        generic_train(GLUETransformer(run, model, tokenizer, corpus), trainer)
    if actions.do_eval or (actions.do_train and corpus.has("dev")):
        glue_model.evaluate_texts(run, corpus, model, tokenizer)
    if actions.do_predict:
        glue_model.predict_texts(run, corpus, model, tokenizer)
    finish_run(run)


if __name__ == "__main__":
    run_script(main)
