"""A run under Lightning, in the terms of the other runs."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.run_folder import BEST_FOLDER

_DEV, _RATE = "val_", "lr-"
_OF_A_TRAINING = {"--do_train": 0, "--overwrite_output_dir": 0, "--resume_from_checkpoint": 1}  # flags, their values


def is_lightning_run(folder: Path) -> bool:
    return (folder / BEST_FOLDER / "config.json").is_file()


def read_flags(folder: Path) -> dict[str, Any]:
    """What the run was told, as its logger has it."""
    path = folder / "tensorboard" / "hparams.yaml"
    return dict(yaml.safe_load(path.read_text("utf-8"))) if path.is_file() else {}


def as_other_runs_name_them(scalars: Mapping[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """Curves under the names of `callbacks.reporter`: ``dev/f1`` for ``val_f1``."""
    return {_name(tag): curve for tag, curve in scalars.items()}


def _name(tag: str) -> str:
    if tag.startswith(_DEV):
        return f"dev/{tag.removeprefix(_DEV)}"
    if tag.startswith(_RATE):  # lr-AdamW/encoder/not decayed: a part's rate is the same with decay and without
        return f"learning_rate/{tag.split('/')[1]}"
    return "train/loss" if tag == "train_loss" else tag


def command_of(environment: Mapping[str, Any], action: str) -> str:
    """The command line of a training, to be given again; or one that predicts with what it left."""
    script, *flags = environment.get("command", ["run_pl_ner.py"])
    wanted = flags if action == "do_train" else [*_without_training(flags), "--do_predict"]
    return shlex.join(["python", script, *wanted])


def _without_training(flags: Sequence[str]) -> Iterator[str]:
    left = iter(flags)
    for flag in left:
        name, equals, _ = flag.partition("=")
        if name not in _OF_A_TRAINING:
            if name != "--do_predict":
                yield flag
        elif _OF_A_TRAINING[name] and not equals:
            next(left, None)
