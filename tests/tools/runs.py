"""Command lines, runs of the scripts, and what they leave."""

import importlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, set_seed

from models import BertCrfForNer, BertSoftmaxForNer
from models.heads.flat import FlatTagger
from processors.features.dataset import FeatureDataset
from tests.tools.forks import Forked
from tools.data import load_and_cache_examples, load_training_data
from tools.loading import load_model_and_tokenizer
from tools.run import Run
from tools.script import run_script
from tools.settings import Settings
from tools.train import train

TAGGERS: dict[type, type[FlatTagger]] = {head.Options: head for head in (BertCrfForNer, BertSoftmaxForNer)}
SCRIPTS = ["run_ner_crf", "run_ner_softmax"]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its script, its folder, and the options that name data and folder."""

    script: str
    folder: Path
    options: dict[str, Any]


def options_of_run(encoder: Path, corpus: Path, home: Path) -> dict[str, Any]:
    return {
        "task_name": "tiny",
        "data_dir": str(corpus),
        "output_dir": str(home / "run"),
        "model_name_or_path": str(encoder),
        "feature_cache_dir": str(home / "cache"),
        "learning_rate": 2e-3,
        "no_cuda": True,
    }


def flags(**options: Any) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def call_script(script: str, **options: Any) -> None:
    """Runs a script in this process; it ends in SystemExit where the user would see an error."""
    with patch.object(sys, "argv", [f"{script}.py", *flags(**options)]):
        run_script(importlib.import_module(script).main)


def start_script(*command: str, **options: Any) -> CompletedProcess[str]:
    """Runs ``python COMMAND --option=value ...`` in a process of its own."""
    return Forked(command, flags(**options)).end()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def edit_json(path: Path, **changes: Any) -> None:
    """Changes entries; None removes one."""
    content = {**read_json(path), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test_predictions.jsonl").read_text("utf-8").splitlines()]


def encoder_without_dropout(encoder: Path, folder: Path) -> Path:
    """The same encoder, trained without chance."""
    shutil.copytree(encoder, folder)
    config = read_json(folder / "config.json")
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def crf(**options: Any) -> Run:
    """A run of a CRF with these flags, in which nothing is loaded yet."""
    return Run.of(Settings.of(BertCrfForNer.Options, **options))


def softmax(**options: Any) -> Run:
    """The same with a softmax head."""
    return Run.of(Settings.of(BertSoftmaxForNer.Options, **options))


def replace(run: Run, **options: Any) -> Run:
    """A run with other flags, in which nothing is loaded yet."""
    return Run.of(run.settings.replace(**options))


def tagger_of(run: Run) -> type[FlatTagger]:
    """The class of the run's model."""
    return TAGGERS[type(run.settings.head)]


def prepared(run: Run) -> tuple[Run, FlatTagger, PreTrainedTokenizerBase]:
    """Run, model and tokenizer as a script would have them."""
    set_seed(run.settings.optimisation.seed)
    return load_model_and_tokenizer(run, tagger_of(run))


def fit(run: Run) -> tuple[int, float, dict[str, Tensor]]:
    """Trains as a script does; steps, mean loss and weights."""
    run, model, tokenizer = prepared(run)
    dataset = load_training_data(run, tokenizer)
    steps, loss = train(run, dataset, model, tokenizer)
    return steps, loss, {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def split_of(run: Run, split: str = "dev") -> tuple[Run, FlatTagger, FeatureDataset]:
    """A new model, ready to be asked, its run, and a split."""
    run, model, tokenizer = prepared(run)
    return run, model.eval(), load_and_cache_examples(run, run.corpus.task_name, tokenizer, split)


def largest_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left if left[name].dtype == torch.float32)
