"""Runs of the Lightning scripts on tiny data, in this process or in their own."""

import importlib
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

from lightning_runs.module import BaseTransformer
from run_pl_ner import NERTransformer
from tests.tools.forks import Forked
from tests.tools.ranks import free_port
from tools.script import run_script

COLUMNS = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def command_line(**options: Any) -> list[str]:
    """``--name value`` for each option; ``--name`` alone where it is true, nothing where it is false."""
    words: list[str] = []
    for name, value in options.items():
        if value is not False:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def call_lightning(script: str, **options: Any) -> None:
    """Runs a script in this process, on the CPU; it ends in SystemExit where the user would see an error."""
    with patch.object(sys, "argv", [f"{script}.py", *command_line(gpus=0, **options)]):
        run_script(importlib.import_module(script).main)


def start_lightning(script: str, **options: Any) -> CompletedProcess[str]:
    """Runs a script in a process of its own, which may start others."""
    return Forked([f"{script}.py"], command_line(gpus=0, **options)).end()


def on_two_machines(script: str, **options: Any) -> list[CompletedProcess[str]]:
    """Runs a script in two processes, as if they were on two machines."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    places = [{**meeting, "NODE_RANK": str(rank)} for rank in range(2)]
    runs = [Forked([f"{script}.py"], command_line(gpus=0, num_nodes=2, **options), place) for place in places]
    return [run.end() for run in runs]


def ner_options(encoder: Path, corpus: Path, home: Path, **changes: Any) -> dict[str, Any]:
    """A short training of a tagger on the tiny corpus."""
    labels = home / "labels.txt"
    labels.write_text("PER\nLOC\nORG\n", "utf-8")
    options = {
        "data_dir": corpus,
        "output_dir": home / "run",
        "model_name_or_path": encoder,
        "feature_cache_dir": home / "cache",
        "labels": labels,
        "from_scratch": True,
        "do_train": True,
        "do_predict": True,
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "warmup_proportion": 0.0,
        "metric_for_best_model": "loss",
        "train_batch_size": 8,
        "max_epochs": 3,
        "log_every_n_steps": 1,
    }
    return options | changes


def glue_options(encoder: Path, data: Path, home: Path, **changes: Any) -> dict[str, Any]:
    """A short training of a classifier on tiny pairs."""
    same = ner_options(encoder, data, home)
    del same["labels"]
    return same | {"task": "MRPC"} | changes


def write_pairs(folder: Path, sizes: dict[str, int]) -> Path:
    """Pairs in MRPC's layout, in the words of the tiny encoder: they say the same where the second names Paris."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["the man said that he saw it", "when we met near here", "he left", "it said that we met the man near here"]
    for split, size in sizes.items():
        lines = [COLUMNS.replace("Quality", "index") if split == "test" else COLUMNS]
        for number in range(size):
            text = words[number % len(words)]
            same = number // len(words) % 2
            second = "paris" if same else "rome"
            lines.append(f"{number if split == 'test' else same}\t{number}\t{number}\t{text}\t{second}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def read_scores(folder: Path, split: str = "test") -> dict[str, float]:
    """The numbers of ``test_results.txt``, or of another split, that are one each for the whole split."""
    parts = (line.split(" = ") for line in (folder / f"{split}_results.txt").read_text("utf-8").splitlines())
    return {part[0]: float(part[1]) for part in parts if len(part) == 2 and " " not in part[0]}


class CrashError(Exception):
    """Stands for anything that ends a process."""


def crash_in(hook: str, call: int) -> Any:
    """Makes a run end in the given call of one of its methods."""
    owner = NERTransformer if hook in vars(NERTransformer) else BaseTransformer
    original, calls = getattr(owner, hook), 0

    def crashing(self: BaseTransformer, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise CrashError
        return original(self, *args, **kwargs)

    return patch.object(owner, hook, crashing)
