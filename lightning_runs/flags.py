"""Flags of the Lightning scripts, under the names of the Hugging Face examples, and what the rest of the house makes
of them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig

from common.command_line import Bounds
from tools.settings import AVERAGES, LARGEST_SEED, SCHEDULES, OptimisationSettings, Settings

_OTHER_NAMES = {"cosine_w_restarts": "cosine_with_restarts"}  # that the examples have for schedules
_SHARED = (
    *("data_dir", "output_dir", "feature_cache_dir", "overwrite_cache", "model_name_or_path", "config_name"),
    *("tokenizer_name", "cache_dir", "from_scratch", "do_lower_case", "learning_rate", "weight_decay"),
    *("adam_epsilon", "seed", "num_workers", "warmup_steps", "warmup_proportion"),
    *("averaging", "ema_decay", "swa_start", "do_adv", "adv_epsilon", "report_to"),
)
_COUNT, _COUNT_OR_NONE = Bounds(int, at_least=1), Bounds(int, at_least=0)
_SIZE, _SHARE = Bounds(float, at_least=0), Bounds(float, at_least=0, at_most=1)
_DROPOUTS = {
    "dropout": ("hidden_dropout_prob", "dropout"),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
}


def add_generic_args(parser: ArgumentParser) -> None:
    """Flags of the run: data, machine, steps."""
    flag = parser.add_argument_group("run").add_argument
    flag("--data_dir", default="", help="folder with the train, dev and test files")
    flag("--output_dir", default="", help="folder of the run: checkpoints, best model, scores, TensorBoard events")
    flag("--overwrite_output_dir", action="store_true", help="clear an earlier run's checkpoints in output_dir away")
    flag("--do_train", action="store_true", help="train, and keep the checkpoint that is best on dev")
    flag("--do_predict", action="store_true", help="test the best checkpoint, and write predictions")
    flag("--resume_from_checkpoint", default="", help="a checkpoint to go on from, or auto: the last of output_dir")
    flag(
        "--save_steps",
        type=_COUNT_OR_NONE,
        default=0,
        help="write last.ckpt every N steps, not only after each epoch",
    )
    flag("--metric_for_best_model", default="loss", help="score of dev that chooses the best; of loss the smallest")
    flag(
        "--early_stopping_patience",
        type=_COUNT_OR_NONE,
        default=0,
        help="stop after this many epochs without a better one; 0: never",
    )
    flag("--log_every_n_steps", type=_COUNT, default=20, help="log loss and learning rates every N steps")
    flag("--report_to", default="tensorboard", choices=["tensorboard", "none"], help="where curves are written")
    seeds = Bounds(int, at_least=0, at_most=LARGEST_SEED)
    flag("--seed", type=seeds, default=42, help="seed of initial weights, dropout and the order of the data")
    flag("--feature_cache_dir", default="outputs/feature_cache", help="where features are kept from run to run")
    flag("--overwrite_cache", action="store_true", help="build the features anew")
    flag("--max_seq_length", type=_COUNT, default=128, help="tokens of a sequence, special ones included")
    machine = parser.add_argument_group("machine").add_argument
    gpus = Bounds(int, at_least=-1)
    machine("--gpus", type=gpus, help="GPUs on each node; 0: the CPU; -1: all; by default one where there is one")
    machine("--devices", type=_COUNT, help="processes on each node, each on a GPU, or on the CPU with --gpus 0")
    machine("--num_nodes", type=_COUNT, default=1, help="machines that train together")
    machine("--fp16", action="store_true", help="mixed precision in float16 with loss scaling (GPU)")
    machine("--bf16", action="store_true", help="mixed precision in bfloat16")
    machine("--num_workers", type=_COUNT_OR_NONE, default=0, help="processes that prepare batches")


def add_model_args(parser: ArgumentParser) -> None:
    """Flags of the encoder and its optimisation."""
    flag = parser.add_argument_group("model").add_argument
    flag("--model_name_or_path", required=True, help="encoder: a name on the Hugging Face hub, or a folder")
    flag("--config_name", default="", help="config of the encoder, if elsewhere")
    flag("--tokenizer_name", default="", help="tokenizer, if elsewhere")
    flag("--cache_dir", default="", help="where downloaded encoders are kept")
    flag("--from_scratch", action="store_true", help="start from random weights: only config and tokenizer are read")
    flag("--do_lower_case", action="store_true", help="lower-case the text, as uncased encoders want it")
    flag("--dropout", type=_SHARE, help="dropout of the hidden states, instead of the config's")
    flag("--attention_dropout", type=_SHARE, help="dropout of the attention, instead of the config's")
    training = parser.add_argument_group("optimisation").add_argument
    training("--train_batch_size", type=_COUNT, default=32, help="sequences of a training batch in each process")
    training("--eval_batch_size", type=_COUNT, default=32, help="sequences of an evaluation batch in each process")
    epochs = ("--num_train_epochs", "--max_epochs")
    training(*epochs, dest="max_epochs", type=_COUNT, default=3, help="passes over the training data")
    rounds = ("--gradient_accumulation_steps", "--accumulate_grad_batches")
    training(*rounds, dest="accumulate_grad_batches", type=_COUNT, default=1, help="batches of a step")
    norm = ("--max_grad_norm", "--gradient_clip_val")
    training(*norm, dest="gradient_clip_val", type=_SIZE, default=1.0, help="gradients are clipped to it; 0: not")
    training("--learning_rate", type=_SIZE, default=5e-5, help="peak learning rate")
    training(
        "--lr_scheduler",
        default="linear",
        choices=[*SCHEDULES, *_OTHER_NAMES],
        help="how the rate falls after the warm-up",
    )
    training("--warmup_steps", type=_COUNT_OR_NONE, default=0, help="steps in which the learning rate rises")
    training("--warmup_proportion", type=_SHARE, default=0.0, help="the same as a share of all steps")
    training("--weight_decay", type=_SIZE, default=0.0, help="weight decay, but for biases and norms")
    training("--adam_epsilon", type=Bounds(float, above=0), default=1e-8, help="epsilon of AdamW")
    training("--adafactor", action="store_true", help="Adafactor instead of AdamW")
    training("--averaging", default="none", choices=AVERAGES, help="score and keep a mean of the weights")
    training("--ema_decay", type=_SHARE, default=0.99, help="with ema: share of itself that the mean keeps in a step")
    start = Bounds(float, at_least=0, below=1)
    training("--swa_start", type=start, default=0.75, help="with swa: share of the run after which steps count")
    training("--do_adv", action="store_true", help="adversarial training on disturbed word embeddings (FGM)")
    training("--adv_epsilon", type=Bounds(float, above=0), default=1.0, help="with do_adv: length of the disturbance")


def check_arguments(args: Namespace, metrics: Sequence[str]) -> None:
    """Raises a ValueError with all flags that contradict each other, or ask for what this machine does not have.

    Args:
        metrics: the scores that there are of dev.
    """
    faults = list(_faults(args, torch.cuda.device_count()))
    if args.metric_for_best_model not in metrics:
        faults.append(f"--metric_for_best_model {args.metric_for_best_model} is none of {', '.join(metrics)}")
    if faults:
        raise ValueError("; ".join(faults))


def _faults(args: Namespace, gpus_here: int) -> Iterator[str]:
    if not (args.do_train or args.do_predict):
        yield "nothing to do: add --do_train or --do_predict"
    if not args.output_dir:
        yield "--output_dir must be given"
    if args.resume_from_checkpoint and not args.do_train:
        yield "--resume_from_checkpoint resumes a training: add --do_train"
    if args.adafactor and args.adam_epsilon != OptimisationSettings.adam_epsilon:
        yield f"--adam_epsilon {args.adam_epsilon} has no effect with --adafactor"
    if not args.do_adv and args.adv_epsilon != OptimisationSettings.adv_epsilon:
        yield f"--adv_epsilon {args.adv_epsilon} has no effect without --do_adv"
    if args.fp16 and args.bf16:
        yield "--fp16 and --bf16 exclude each other"
    if args.warmup_steps and args.warmup_proportion:
        yield "--warmup_steps and --warmup_proportion exclude each other"
    wanted = (args.devices or args.gpus) if args.gpus else 0
    if wanted > gpus_here:
        yield f"{wanted} GPUs are asked for, and this machine has {gpus_here}; --gpus 0 stays on the CPU"
    if args.gpus and args.devices and args.gpus != args.devices:
        yield f"--gpus {args.gpus} and --devices {args.devices} contradict each other; give one of them"
    if args.fp16 and (args.gpus == 0 or not gpus_here):
        yield "--fp16 needs a GPU; on a CPU use --bf16"


def trainer_options(args: Namespace) -> dict[str, Any]:
    """Devices and precision in Lightning's terms."""
    on_gpu = args.gpus != 0 and torch.cuda.is_available()
    return {
        "accelerator": "gpu" if on_gpu else "cpu",
        "devices": args.devices or args.gpus or 1,
        "num_nodes": args.num_nodes,
        "precision": "16-mixed" if args.fp16 else "bf16-mixed" if args.bf16 else "32-true",
    }


def as_settings(args: Namespace, head: type, **others: Any) -> Settings:
    """The same choices under the names of the other scripts.

    Args:
        head: the class of the head's options.
    """
    mixed = args.fp16 or args.bf16  # then Lightning clips no fused optimiser's gradients
    return Settings.of(
        head,
        **{name: getattr(args, name) for name in _SHARED},
        train_max_seq_length=args.max_seq_length,
        eval_max_seq_length=args.max_seq_length,
        per_gpu_train_batch_size=args.train_batch_size,
        per_gpu_eval_batch_size=args.eval_batch_size,
        gradient_accumulation_steps=args.accumulate_grad_batches,
        optim="adafactor" if args.adafactor else "adamw_torch" if mixed else "adamw_torch_fused",
        lr_scheduler_type=_OTHER_NAMES.get(args.lr_scheduler, args.lr_scheduler),
        **others,
    )


def set_dropouts(args: Namespace, config: PreTrainedConfig) -> None:
    """Writes the dropouts asked for into an encoder's config, under the names that its family has for them.

    Raises:
        ValueError: the family has no such dropout.
    """
    for flag, names in _DROPOUTS.items():
        value = getattr(args, flag)
        if value is None:
            continue
        known = [name for name in names if hasattr(config, name)]
        if not known:
            raise ValueError(f"--{flag} {value}: the config of {config.model_type} has no {' or '.join(names)}")
        setattr(config, known[0], value)
