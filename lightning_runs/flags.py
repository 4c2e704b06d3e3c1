"""Flags of the Lightning scripts: those of the other scripts, also under the names of the Hugging Face examples."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from common.options import option
from tools.command_line import parse_flags
from tools.settings import Settings

# Defaults that differ from those of run_ner_*.py; the scripts log them.
DEFAULTS: dict[str, Any] = {"per_gpu_train_batch_size": 32, "per_gpu_eval_batch_size": 32, "save_steps": -1}
ALIASES = {
    "per_gpu_train_batch_size": ["train_batch_size"],
    "per_gpu_eval_batch_size": ["eval_batch_size"],
    "num_train_epochs": ["max_epochs"],
    "gradient_accumulation_steps": ["accumulate_grad_batches"],
    "max_grad_norm": ["gradient_clip_val"],
    "lr_scheduler_type": ["lr_scheduler"],
    "log_loss_steps": ["log_every_n_steps"],
}
_DEVICES = "Lightning starts the processes; use --devices and --num_nodes"
_ONE_CHECKPOINT = "only last.ckpt, to resume from, and the best model on dev are kept"
_APEX = "Lightning runs use PyTorch's native mixed precision"
REFUSED = {
    "eval_all_checkpoints": _ONE_CHECKPOINT,
    "predict_checkpoints": _ONE_CHECKPOINT,
    "save_total_limit": _ONE_CHECKPOINT,
    "max_batch_tokens": "Lightning needs the same number of batches in every epoch; use --train_batch_size",
    "local_rank": _DEVICES,
    "shard_optimizer": "last.ckpt holds the whole optimiser; use run_ner_*.py",
    "fp16_backend": _APEX,
    "fp16_opt_level": _APEX,
}
_DROPOUTS = {
    "dropout": ("hidden_dropout_prob", "dropout"),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
}


@dataclass(frozen=True)
class LightningOptions:
    """Options of the Lightning scripts only."""

    gpus: int | None = option(
        None, "GPUs per machine; 0: the CPU; -1: all; default: one if there is one", kind=int, common=True, at_least=-1
    )
    devices: int | None = option(
        None, "processes per machine, each on a GPU, or on the CPU with --gpus 0", kind=int, common=True, at_least=1
    )
    num_nodes: int = option(1, "machines that train together", common=True, at_least=1)
    max_seq_length: int | None = option(
        None, "sets train_max_seq_length and eval_max_seq_length", kind=int, common=True, at_least=1
    )
    dropout: float | None = option(
        None, "dropout of hidden states; default: that of the config", kind=float, at_least=0, at_most=1
    )
    attention_dropout: float | None = option(
        None, "dropout of the attention, likewise", kind=float, at_least=0, at_most=1
    )
    adafactor: bool = option(False, "the same as --optim adafactor")

    def set_dropouts(self, config: PreTrainedConfig) -> None:
        """Set the dropouts in an encoder's config, under the names of its family.

        Raises:
            ValueError: the config has no such dropout.
        """
        for flag, names in _DROPOUTS.items():
            value = getattr(self, flag)
            if value is None:
                continue
            known = [name for name in names if hasattr(config, name)]
            if not known:
                raise ValueError(f"--{flag} {value}: the config of {config.model_type} has no {' or '.join(names)}")
            setattr(config, known[0], value)


def parse_lightning(
    blank: Settings,
    own: type,
    description: str | None,
    refused: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> tuple[Settings, LightningOptions, Any]:
    """Parse the command line of a Lightning script. Prints errors and exits.

    Args:
        blank: settings with the default values.
        own: dataclass of the flags of this script only.
        refused: reason, by flag that this script does not support.

    Returns:
        The settings, and instances of `LightningOptions` and ``own``.
    """
    words = [re.sub("(^|=)cosine_w_restarts$", r"\1cosine_with_restarts", word) for word in argv or sys.argv[1:]]
    kinds = (own, LightningOptions)
    settings, (others, options) = parse_flags(blank, description, words, kinds, ALIASES, REFUSED | dict(refused or {}))
    if options.max_seq_length:
        settings = settings.replace(train_max_seq_length=options.max_seq_length)
        if not settings.model.eval_max_seq_length and "eval_max_seq_length" not in (refused or {}):
            settings = settings.replace(eval_max_seq_length=options.max_seq_length)
    if options.adafactor:
        settings = settings.replace(optim="adafactor")
    if settings.machine.fp16:
        settings = settings.replace(fp16_backend="native")
    return settings, options, others


def differing_defaults(settings: Settings, defaults: Mapping[str, Any]) -> str:
    """List the flags with the given non-standard defaults, for the log."""
    flat = settings.flat()
    return ", ".join(f"--{name} {value}" for name, value in defaults.items() if flat[name] == value)
