"""One set of dataclasses for flags, help and config files; the names are those that the field uses.

A config file (YAML or JSON, ``--config_file``) holds the same names; flags on the command line win over it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from common.command_line import Bounds, DataclassCommandLine, StoreNumber, read_config_file
from common.tag_schemes import TRAINED_MARKUPS
from processors.spans import OFFSET_UNITS, SPAN_EDGES
from processors.text.word_cutting import WORD_UNITS
from tools.argument_checks import idle_options


def arg(default: Any, help: str, choices: Sequence[str] | None = None, **options: Any) -> Any:
    """A dataclass field with its line of help, and the `Bounds` of a number or further options of ``argparse``."""
    metadata: dict[str, Any] = {"help": help}
    if choices:
        metadata["choices"] = list(choices)
    if type(default) in (int, float):
        metadata |= {"action": StoreNumber, "bounds": Bounds(type(default), **options)}
    else:
        metadata |= options
    return field(default=default, metadata=metadata)


EVAL_WINDOW = 512  # tokens
OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "adafactor", "apex_fused_adam")
REPORTERS = ("tensorboard", "mlflow", "wandb")
AVERAGES = ("none", "ema", "swa")
BEST_MODEL_METRICS = ("f1", "precision", "recall", "accuracy", "loss", "strict_f1", "strict_precision", "strict_recall")
LARGEST_SEED = 2**32 - 2**16  # numpy takes 32 bits, and each process adds its rank
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
    "constant",
    "constant_with_warmup",
)


@dataclass
class TaskArguments:
    """What to do, on which data."""

    _argument_group_name = "task"

    task_name: str = arg("", "name of the corpus: cner, cluener, conll2003, or any name for your own")
    data_dir: str = arg("", "folder with the train, dev and test files, and optionally labels.txt")
    output_dir: str = arg("", "folder of the run: model, scores, predictions, log, TensorBoard events")
    do_train: bool = arg(False, "train on the train split")
    do_eval: bool = arg(False, "score the dev split")
    do_predict: bool = arg(False, "predict the test split, and score it if it is labelled")
    train_file: str = arg("", "file of the train split, if data_dir does not have it under a usual name")
    dev_file: str = arg("", "file of the dev split, likewise")
    test_file: str = arg("", "file of the test split, likewise")
    dataset_name: str = arg("", "a Hugging Face dataset (name, name:configuration or folder) instead of data_dir")
    labels: str = arg(
        "", "file with one tag or entity type per line; default: labels.txt in data_dir, or the labels in the data"
    )
    tag_column: str = arg(
        "last",
        "column of the tags: last, a number from 0, or a name (header, pos/chunk/ner); in JSON their key",
    )
    word_column: str = arg(
        "", "column of the words, likewise; default: the first, or the second if the first numbers the words"
    )
    word_unit: str = arg(
        "", "how raw text is split into words; default: that of the trained model, or of the task", ["", *WORD_UNITS]
    )
    span_edges: str = arg(
        "snap",
        "entities that start or end inside a word: widen them, drop them, or stop with an error",
        SPAN_EDGES,
    )
    offset_unit: str = arg(
        "auto", "how annotation files count characters; utf16: emoji count as two, as in JavaScript", OFFSET_UNITS
    )
    markup: str = arg("bios", "tag scheme used for training, whatever the files use", choices=TRAINED_MARKUPS)
    feature_cache_dir: str = arg("outputs/feature_cache", "folder in which features are cached between runs")
    overwrite_cache: bool = arg(False, "rebuild the cached features")
    overwrite_output_dir: bool = arg(False, "allow output_dir to contain an earlier run, which is deleted")


@dataclass
class ModelArguments:
    """The encoder and its head."""

    _argument_group_name = "model"

    model_type: str = arg("", "family of the encoder (bert, roberta, xlnet, ...), if its config.json does not name it")
    model_name_or_path: str = arg("", "encoder: a name on the Hugging Face hub, or a folder")
    config_name: str = arg("", "config of the encoder, if it is elsewhere: name, folder or file")
    tokenizer_name: str = arg("", "tokenizer, if it is elsewhere: name, folder or vocabulary file")
    cache_dir: str = arg("", "folder for downloaded encoders")
    from_scratch: bool = arg(False, "start from random weights: only the config and the tokenizer are read")
    do_lower_case: bool = arg(False, "lower-case the text, for uncased encoders")
    casing: bool = arg(False, "tell an uncased encoder by token types which words are capitalised")
    train_max_seq_length: int = arg(
        128, "tokens per training window; longer texts are split into several windows", at_least=1
    )
    eval_max_seq_length: int = arg(
        0,
        f"tokens per window in evaluation and prediction; 0: that of the trained model, or {EVAL_WINDOW}",
        at_least=0,
    )
    window_overlap: int = arg(
        -1,
        "word pieces shared by neighbouring windows; -1: that of the trained model, or a quarter of a window",
        at_least=-1,
    )


@dataclass
class OptimisationArguments:
    """The training itself."""

    _argument_group_name = "optimisation"

    per_gpu_train_batch_size: int = arg(8, "windows per training batch on each GPU or CPU process", at_least=1)
    per_gpu_eval_batch_size: int = arg(8, "windows per evaluation batch on each GPU or CPU process", at_least=1)
    max_batch_tokens: int = arg(
        0, "maximum number of padded tokens per training batch, instead of windows; 0: off", at_least=0
    )
    gradient_accumulation_steps: int = arg(1, "batches whose gradients are accumulated before a step", at_least=1)
    learning_rate: float = arg(5e-5, "peak learning rate of the encoder", at_least=0)
    head_learning_rate: float = arg(
        -1.0,
        "peak learning rate of the linear layer; -1: that of the CRF, or of the encoder without a CRF",
        at_least=0,
        also=-1,
    )
    weight_decay: float = arg(0.01, "weight decay, except for biases and normalisation weights", at_least=0)
    adam_epsilon: float = arg(1e-8, "epsilon of AdamW", above=0)
    max_grad_norm: float = arg(1.0, "maximum gradient norm; 0: no clipping", at_least=0)
    max_nonfinite_steps: int = arg(
        20, "stop after this many consecutive steps with a loss or gradients that are not finite", at_least=1
    )
    num_train_epochs: float = arg(3.0, "passes over the training data; may be a fraction", at_least=0)
    max_steps: int = arg(-1, "optimiser steps, instead of num_train_epochs", at_least=1, also=-1)
    optim: str = arg(
        "adamw_torch_fused", "optimiser; adafactor needs less memory; apex_fused_adam needs apex", OPTIMIZERS
    )
    layer_decay: float = arg(
        1.0,
        "layer-wise learning rate decay: ratio between the rates of a layer and the layer above; 1: off",
        above=0,
        at_most=1,
    )
    freeze_layers: int = arg(0, "freeze the lowest N encoder layers", at_least=0)
    freeze_embeddings: bool = arg(False, "freeze the encoder's embeddings")
    lr_scheduler_type: str = arg("linear", "learning rate schedule after the warm-up", SCHEDULES)
    lr_scheduler_kwargs: str = arg(
        "", """options of the schedule as JSON, such as '{"num_cycles": 3}' for cosine_with_restarts"""
    )
    warmup_proportion: float = arg(0.1, "fraction of the steps used for linear warm-up", at_least=0, at_most=1)
    warmup_steps: int = arg(0, "warm-up steps, instead of warmup_proportion", at_least=0)
    averaging: str = arg(
        "none",
        "evaluate and save averaged weights: exponential moving average, or stochastic weight averaging",
        AVERAGES,
    )
    ema_decay: float = arg(0.99, "with averaging ema: decay per step", at_least=0, at_most=1)
    swa_start: float = arg(
        0.75, "with averaging swa: fraction of the run after which averaging starts", at_least=0, below=1
    )
    do_adv: bool = arg(False, "adversarial training on perturbed embeddings")
    adv_type: str = arg("fgm", "fgm: one step (Miyato et al. 2017); pgd: several (Madry et al. 2018)", ["fgm", "pgd"])
    adv_epsilon: float = arg(1.0, "maximum norm of the perturbation", above=0)
    adv_alpha: float = arg(0.3, "with adv_type pgd: step size", above=0)
    adv_steps: int = arg(3, "with adv_type pgd: number of steps", at_least=1)
    adv_name: str = arg("word_embeddings", "perturb the parameters whose name contains this")
    rdrop_alpha: float = arg(
        0.0, "weight of the R-Drop loss between two passes with different dropout; 0: off", at_least=0
    )
    seed: int = arg(
        42, "random seed of initial weights, dropout and the order of the data", at_least=0, at_most=LARGEST_SEED
    )
    num_workers: int = arg(0, "worker processes that prepare batches", at_least=0)


@dataclass
class LoggingArguments:
    """What is written and when."""

    _argument_group_name = "logging and checkpoints"

    logging_steps: int = arg(
        -1, "evaluate on dev every N steps (see evaluate_during_training); -1: every epoch", at_least=1, also=-1
    )
    save_steps: int = arg(
        0, "save a checkpoint to resume from every N steps; -1: every epoch; 0: only when interrupted", at_least=-1
    )
    save_total_limit: int = arg(0, "keep only the latest N checkpoints; 0: keep all", at_least=0)
    resume_from_checkpoint: str = arg("", "resume from this checkpoint folder; auto: from the latest one in output_dir")
    log_loss_steps: int = arg(
        20, "log loss, learning rates and speed every N steps; -1: every epoch", at_least=1, also=-1
    )
    report_to: str = arg("tensorboard", "trackers, separated by commas: tensorboard, mlflow, wandb; or none")
    callback: str = arg("", "your own callback as module:Class; see docs/callbacks.md")
    evaluate_during_training: bool = arg(True, "evaluate on dev during training, and restore the best model at the end")
    metric_for_best_model: str = arg(
        "f1", "dev score that selects the best model; for loss, lower is better", BEST_MODEL_METRICS
    )
    early_stopping_patience: int = arg(0, "stop after this many evaluations without improvement; 0: never", at_least=0)
    eval_all_checkpoints: bool = arg(False, "with do_eval: evaluate every checkpoint, not only the final model")
    predict_checkpoints: str = arg(
        "",
        "with do_predict: also predict with the checkpoint of this step, or with all checkpoints",
        nargs="?",
        const="all",
    )


@dataclass
class MachineArguments:
    """Devices, processes and precision."""

    _argument_group_name = "machine"

    no_cuda: bool = arg(False, "use the CPU even if there is a GPU")
    local_rank: int = arg(-1, "set by torch.distributed.launch", at_least=-1)
    ddp_timeout: int = arg(
        3600,
        "seconds that a process waits for the others, for example during a download, before the run fails",
        at_least=1,
    )
    shard_optimizer: bool = arg(False, "shard the optimiser state over the processes (ZeRO stage 1)")
    fp16: bool = arg(False, "mixed precision in float16 with loss scaling")
    fp16_backend: str = arg(
        "auto",
        "auto: apex if it is installed with amp, otherwise PyTorch's native mixed precision",
        ["auto", "native", "apex"],
    )
    fp16_opt_level: str = arg("O1", "optimisation level of apex.amp", ["O0", "O1", "O2", "O3"])
    bf16: bool = arg(False, "mixed precision in bfloat16")
    tf32: bool = arg(False, "use TensorFloat-32 for float32 matrix products, on GPUs that support it")
    gradient_checkpointing: bool = arg(False, "save memory by recomputing each layer in the backward pass")
    torch_compile: bool = arg(False, "compile the model for training and evaluation")
    torch_compile_backend: str = arg("inductor", "with torch_compile: eager and aot_eager need no C++ compiler")


@dataclass
class HeadArguments:
    """What belongs to one head only."""

    _argument_group_name = "heads"

    loss: str = arg(
        "ce",
        "loss of the softmax head: ce, focal or lsr (cross-entropy, focal, label smoothing), or module:function",
        aliases=["--loss_type"],
    )
    crf_learning_rate: float = arg(1e-3, "peak learning rate of the CRF's transitions", at_least=0)
    crf_constraints: bool = arg(True, "allow only transitions that are legal in the tag scheme")


@dataclass
class NerArguments(
    TaskArguments, ModelArguments, HeadArguments, OptimisationArguments, LoggingArguments, MachineArguments
):
    """All arguments of the NER scripts as one flat namespace, with what the run finds out about itself."""

    label_list: list[str] = field(init=False, default_factory=list)
    casing_types: list[int] = field(init=False, default_factory=list)
    kept_words: tuple[str, ...] = field(init=False, default=())
    device: torch.device = field(init=False, default_factory=lambda: torch.device("cpu"))
    n_gpu: int = field(init=False, default=0)
    other_heads_arguments: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Raises a ValueError that names all settings which cannot be, or cannot be together."""
        faults = []
        for one in (one for one in fields(self) if one.init):
            value, choices = getattr(self, one.name), one.metadata.get("choices", ())
            if value not in one.metadata.get("bounds", (value,)):
                faults.append(f"--{one.name} {value}: must be {one.metadata['bounds']}")
            if choices and value not in choices:
                faults.append(f"--{one.name} {value} is none of {', '.join(filter(None, choices))}")
        for name in self.other_heads_arguments:
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if value != default:
                faults.append(f"--{name} {value} has no effect here: it belongs to another head; leave it out")
        faults += idle_options(self)
        if self.fp16 and self.bf16:
            faults.append("--fp16 and --bf16 exclude each other")
        if self.casing and self.freeze_embeddings:
            faults.append("--casing adds embeddings that must learn, --freeze_embeddings lets none learn: take one")
        if self.max_steps < 0 and self.num_train_epochs == 0:
            faults.append(f"--num_train_epochs {self.num_train_epochs} trains nothing; leave out --do_train instead")
        if not (self.predict_checkpoints in ("", "all") or self.predict_checkpoints.isdigit()):
            faults.append(f"--predict_checkpoints {self.predict_checkpoints} is neither a step nor all")
        if not set(self.reporters()) <= set(REPORTERS):
            faults.append(f"--report_to {self.report_to}: expected none alone, or some of {', '.join(REPORTERS)}")
        if self.warmup_steps and self.warmup_proportion not in (0, type(self).warmup_proportion):
            faults.append("--warmup_steps and --warmup_proportion exclude each other")
        if faults:
            raise ValueError("; ".join(faults))

    def reporters(self) -> list[str]:
        """What ``report_to`` names."""
        return [] if self.report_to == "none" else self.report_to.split(",")

    def as_json(self) -> dict[str, Any]:
        """What a config file of the same run would hold, on whatever process."""
        chosen = {one.name for one in fields(self) if one.init} - {"local_rank"}
        return {name: value for name, value in asdict(self).items() if name in chosen}


@dataclass
class SoftmaxArguments(NerArguments):
    """Named entity recognition by a softmax over each word's tags."""

    other_heads_arguments: ClassVar[tuple[str, ...]] = ("crf_learning_rate", "crf_constraints")


@dataclass
class CrfArguments(NerArguments):
    """Named entity recognition by a conditional random field."""

    other_heads_arguments: ClassVar[tuple[str, ...]] = ("loss",)


Arguments = TypeVar("Arguments", bound=NerArguments)


def parse_arguments(kind: type[Arguments], argv: Sequence[str] | None = None) -> Arguments:
    """Reads flags, and a config file before them; ends the program with a message where they do not fit."""
    argv = list(sys.argv[1:] if argv is None else argv)
    groups = [base for base in kind.__mro__ if "_argument_group_name" in vars(base)]
    parser = DataclassCommandLine(groups, description=kind.__doc__)
    for action in parser._actions:
        if action.option_strings[:1] == [f"--no_{action.dest}"]:
            action.help = f"switch --{action.dest} off"  # the parser has given it the help of what it switches off
    namespace = argparse.Namespace()
    try:
        config_file = _config_file(argv)
        if config_file:
            entries, parser.faults = read_config_file(config_file)
            places = {f"--{entry.name}": entry.place for entry in entries}
            parser.collect([f"--{entry.name}={entry.value}" for entry in entries], namespace, places)
        parser.add_argument("--config_file", help="YAML or JSON file with any of these arguments; flags win over it")
        parser.parse_args(argv, namespace)
        del namespace.config_file
        return kind(**vars(namespace))
    except ValueError as error:
        parser.error(str(error))


def require(args: NerArguments, *names: str) -> None:
    """Raises a ValueError that names the flags which this run needs and lacks."""
    missing = [f"--{name}" for name in names if not getattr(args, name)]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given")


def _config_file(argv: Sequence[str]) -> Path | None:
    for position, token in enumerate(argv):
        if token == "--config_file" and position + 1 < len(argv):
            return Path(argv[position + 1])
        if token.startswith("--config_file="):
            return Path(token.partition("=")[2])
    return None
