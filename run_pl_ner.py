"""Named entity recognition, chunking or part-of-speech tagging with a BERT-family encoder and PyTorch Lightning.

bash scripts/run_pl_ner.sh                                        # the bundled sample
python run_pl_ner.py --help
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from callbacks import TrainState
from common.options import option
from common.run_files import RunFolder
from common.tag_schemes import OUTSIDE, split_tag
from lightning_runs.flags import DEFAULTS, differing_defaults, parse_lightning
from lightning_runs.module import BaseTransformer, generic_train
from lightning_runs.trainer import build_trainer, source_of, start_run
from models import BertSoftmaxForNer
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from processors.tasks import task_named
from tools.command_line import chosen_head
from tools.data import check_splits, load_training_data
from tools.distributed import run_on_main
from tools.evaluate import evaluate, predict
from tools.loading import adopt_model, load_model_and_tokenizer
from tools.meter import described_window
from tools.recipe import finish_run
from tools.run import Run
from tools.script import run_script
from tools.settings import Settings
from tools.train import dev_dataset_of, score_dev

NER_DEFAULTS = DEFAULTS | {"markup": "bio"}
# For CoNLL files: the corpus with the default labels, and the column of the tags.
TASK_TYPES = {"NER": ("conll2003", "last"), "Chunk": ("chunk", "-2"), "POS": ("pos", "1")}


@dataclass(frozen=True)
class NerOptions:
    """Options of this script only."""

    task_type: str = option("NER", "task: selects tag column and default labels", list(TASK_TYPES), common=True)


class NERTransformer(BaseTransformer):
    """Lightning module for a tagger."""

    model: Tagger

    def __init__(self, run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(adopt_model(run, model), model, tokenizer)

    def open_train(self) -> tuple[FeatureDataset, NDArray[np.int32]]:
        dataset = load_training_data(self.run, self.tokenizer)
        return dataset, dataset.word_counts

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._dev = dev_dataset_of(self.run, self.tokenizer)

    def describe(self, index: int) -> dict[str, Any]:
        return described_window(self._dataset, self.tokenizer, index)

    def forward(self, batch: dict[str, Any]) -> Any:
        return self.model(**batch)

    def score_dev(self, state: TrainState) -> None:
        if self._dev is not None:
            score_dev(self.run, self.model, self._dev, state)


def write_columns(folder: RunFolder, task: str) -> None:
    """Write ``test_predictions.txt``: one word and its tag per line, and a blank line after each text."""
    plain = task_named(task).plain_tags
    with folder.predictions.open(encoding="utf-8") as lines, folder.tag_predictions.open("w", encoding="utf-8") as file:
        for found in map(json.loads, lines):
            tags = [split_tag(tag)[1] or OUTSIDE for tag in found["tags"]] if plain else found["tags"]
            file.write("".join(f"{word} {tag}\n" for word, tag in zip(found["tokens"], tags, strict=True)) + "\n")


def main() -> None:
    head = chosen_head(BertSoftmaxForNer)
    blank = Settings.of(head.Options, **NER_DEFAULTS)
    settings, options, own = parse_lightning(blank, NerOptions, __doc__)
    (name, column), data = TASK_TYPES[own.task_type], settings.data
    column = column if data.tag_column == "last" else data.tag_column
    settings = settings.replace(task_name=data.task_name or name, tag_column=column)
    trainer = build_trainer(settings, options)
    run = start_run(settings, trainer, differing_defaults(settings, NER_DEFAULTS), check_splits)
    run, model, tokenizer = load_model_and_tokenizer(run, head, source_of(run), options.set_dropouts)
    if settings.actions.do_train:
        generic_train(NERTransformer(run, model, tokenizer), trainer)
    if settings.actions.do_eval or (settings.actions.do_train and run.corpus.has("dev")):
        evaluate(run, model, tokenizer)
    if settings.actions.do_predict:
        predict(run, model, tokenizer)
        run_on_main(lambda: write_columns(run.folder, settings.data.task_name))
    finish_run(run)


if __name__ == "__main__":
    run_script(main)
