"""Names, chunks or parts of speech with a BERT-family encoder, trained by PyTorch Lightning.

bash scripts/run_pl_ner.sh                                        # the bundled sample
python run_pl_ner.py --help
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.command_line import Bounds
from common.options import OptionsCommandLine
from common.tag_schemes import OUTSIDE, TRAINED_MARKUPS, split_tag
from lightning_runs.flags import as_settings, set_dropouts
from lightning_runs.module import (
    BaseTransformer,
    add_generic_args,
    best_checkpoint,
    generic_train,
    start_lightning_run,
    test_best,
)
from lightning_runs.token_tasks import TASK_TYPES, TokenClassificationTask, token_task
from models import HEADS, BertSoftmaxForNer, head_named
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from processors.tasks import task_named
from tools.command_line import add_head_flags, chosen_head, without_other_heads
from tools.data import load_and_cache_examples, open_features
from tools.decoding import decoded_documents
from tools.distributed import is_main
from tools.evaluate import analyse_and_report, score_tagged
from tools.loading import load_model_and_tokenizer
from tools.recipe import run_script
from tools.run import Run
from tools.settings import Settings

METRICS = ("loss", "accuracy", "precision", "recall", "f1")


class NERTransformer(BaseTransformer):
    """A tagger on the columns of one of the ``TASK_TYPES``."""

    mode = "token-classification"

    model: Tagger

    def __init__(self, hparams: Namespace | Mapping[str, Any]) -> None:
        flags = hparams if isinstance(hparams, Namespace) else Namespace(**hparams)
        task = token_task(flags.task_type)
        head = head_named(flags.head)
        run, model, tokenizer = load_model_and_tokenizer(
            Run.of(_settings(flags, task, head)),
            head,
            source=flags.model_name_or_path,
            adapt_config=partial(set_dropouts, flags),
        )
        super().__init__(hparams, run, model, tokenizer)
        self.token_classification_task = task

    def splits(self, stage: str) -> list[str]:
        return {"fit": ["train", "dev"], "test": ["test"]}[stage]

    @property
    def traits(self) -> dict[str, str]:
        named = {name: str(self.hparams[name]) for name in ("task_type", "head", "markup", "casing", "max_seq_length")}
        return named | {"labels": f"FILE of {' '.join(self.model.label_names)}"}

    def check_split(self, split: str) -> None:
        self.run.corpus.source_name(split)

    def open_split(self, split: str, alone: bool = False) -> FeatureDataset:
        load = open_features if alone else load_and_cache_examples
        dataset = load(self.run, self.run.settings.data.task_name, self.tokenizer, split)
        dataset.encode = self.model.encode
        return dataset

    def unit_counts(self, dataset: FeatureDataset) -> NDArray[np.int32]:
        return dataset.word_counts

    def forward(self, batch: dict[str, Any]) -> Any:
        return self.model(**batch)

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits

    def score(self, split: str, dataset: FeatureDataset, scores: Tensor, stage: str) -> dict[str, float]:
        markup, everything, is_test = self.run.markup, range(dataset.num_documents), stage == "test"
        documents = list(decoded_documents(self.model, dataset, scores, everything, markup, with_confidence=is_test))
        if not is_test:
            scored = score_tagged(documents, dataset, markup).headline()
            return {name: scored[name] for name in METRICS}
        self._write_predictions(dataset, [document.tags for document in documents])
        if not dataset.is_annotated:
            return {}
        scored = analyse_and_report(self.run, self.model, dataset, documents, "test", "")
        return {name: scored[name] for name in METRICS}

    def write_results(self) -> None:
        """The analysis has written them."""

    def _write_predictions(self, dataset: FeatureDataset, tags: list[list[str]]) -> None:
        """Writes ``test_predictions.txt``: a word and its tag a line, a blank line after each sentence."""
        if not is_main():
            return
        plain = task_named(self.run.settings.data.task_name).plain_tags
        with self.run.folder.tag_predictions.open("w", encoding="utf-8") as file:
            for index, found in enumerate(tags):
                written = [split_tag(tag)[1] or OUTSIDE for tag in found] if plain else found
                words = dataset.document(index).words
                file.write("".join(f"{word} {tag}\n" for word, tag in zip(words, written, strict=True)) + "\n")

    @staticmethod
    def add_model_specific_args(parser: ArgumentParser) -> None:
        BaseTransformer.add_model_specific_args(parser)
        flag = parser.add_argument_group("tagging").add_argument
        flag("--task_type", default="NER", help=f"what the tags are: {', '.join(TASK_TYPES)}")
        flag("--labels", default="", help="file with one tag or type a line; by default those of CoNLL-2003")
        flag("--head", default="softmax", help=f"head: {', '.join(HEADS)}, or your own as module:Class")
        or_default = Bounds(float, at_least=0, also=-1)
        flag("--head_learning_rate", type=or_default, default=-1.0, help="of the linear layer; -1: CRF's or encoder's")
        flag("--casing", action="store_true", help="let an uncased encoder know which words are written with capitals")
        flag("--markup", default="bio", choices=TRAINED_MARKUPS, help="tag scheme used inside, whatever the files use")


def _settings(flags: Namespace, task: TokenClassificationTask, head: type[Tagger]) -> Settings:
    options = {one.name: getattr(flags, one.name) for one in fields(head.Options)}
    return as_settings(
        flags,
        head.Options,
        task_name=task.task_name,
        tag_column=task.tag_column,
        labels=flags.labels,
        markup=flags.markup,
        casing=flags.casing,
        head_learning_rate=flags.head_learning_rate,
        do_train=flags.do_train or best_checkpoint(Path(flags.output_dir)) is not None,  # else the model is trained
        **options,
    )


def main() -> None:
    head = chosen_head(BertSoftmaxForNer)
    parser = OptionsCommandLine(__doc__)
    add_generic_args(parser)
    NERTransformer.add_model_specific_args(parser)
    add_head_flags(parser, head.Options)
    args = parser.parse_args()
    without_other_heads(head.Options, vars(args))
    start_lightning_run(args, METRICS)
    model = NERTransformer(args)
    trainer = generic_train(model, args)
    if args.do_predict:
        test_best(model, trainer)


if __name__ == "__main__":
    run_script(main)
