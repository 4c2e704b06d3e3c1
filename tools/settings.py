"""Settings of a run: a frozen dataclass per subject, whose fields are the flags and the keys of a config file.

A config file (YAML or JSON, ``--config_file``) holds the same names; flags on the command line override it.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from common.options import NoOptions, faults_of, option
from common.tag_schemes import TRAINED_MARKUPS
from models.word_states import WordStateOptions
from processors.spans import OFFSET_UNITS, SPAN_EDGES
from processors.text.word_cutting import WORD_UNITS
from tools.training_settings import REPORTERS, LoggingSettings, OptimisationSettings

EVAL_WINDOW = 512  # tokens


@dataclass(frozen=True)
class ActionSettings:
    """What to do, and where the results go."""

    output_dir: str = option("", "folder of the run: model, scores, predictions, log, TensorBoard events", common=True)
    do_train: bool = option(False, "train on the train split", common=True)
    do_eval: bool = option(False, "score the dev split", common=True)
    do_predict: bool = option(False, "predict the test split, and score it if it is labelled", common=True)
    overwrite_output_dir: bool = option(
        False, "allow output_dir to contain an earlier run, which is deleted", common=True
    )
    resume_from_checkpoint: str = option(
        "", "resume from this checkpoint folder; auto: from the latest one in output_dir", common=True
    )
    eval_all_checkpoints: bool = option(False, "with do_eval: evaluate every checkpoint, not only the final model")
    predict_checkpoints: str = option(
        "",
        "with do_predict: also predict with the checkpoint of this step, or with all checkpoints",
        nargs="?",
        const="all",
    )


@dataclass(frozen=True)
class DataSettings:
    """The corpus, how it is read, and where its features are cached."""

    task_name: str = option("", "name of the corpus: cner, cluener, conll2003, or any name for your own", common=True)
    data_dir: str = option("", "folder with the train, dev and test files, and optionally labels.txt", common=True)
    train_file: str = option(
        "", "file of the train split, if data_dir does not have it under a usual name", needs={"dataset_name": [""]}
    )
    dev_file: str = option("", "file of the dev split, likewise", needs={"dataset_name": [""]})
    test_file: str = option("", "file of the test split, likewise", needs={"dataset_name": [""]})
    dataset_name: str = option(
        "", "a Hugging Face dataset (name, name:configuration or folder) instead of data_dir", common=True
    )
    labels: str = option(
        "", "file with one tag or entity type per line; default: labels.txt in data_dir, or the labels in the data"
    )
    tag_column: str = option(
        "last",
        "column of the tags: last, a number from 0, or a name (header, pos/chunk/ner), or several with commas for "
        "nested entities; in JSON their key",
        common=True,
    )
    word_column: str = option(
        "", "column of the words, likewise; default: the first, or the second if the first numbers the words"
    )
    word_unit: str = option(
        "", "how raw text is split into words; default: that of the trained model, or of the task", ["", *WORD_UNITS]
    )
    span_edges: str = option(
        "snap", "entities that start or end inside a word: widen them, drop them, or stop with an error", SPAN_EDGES
    )
    offset_unit: str = option(
        "auto", "how annotation files count characters; utf16: emoji count as two, as in JavaScript", OFFSET_UNITS
    )
    markup: str = option("bios", "tag scheme used for training, whatever the files use", TRAINED_MARKUPS, common=True)
    feature_cache_dir: str = option("outputs/feature_cache", "folder in which features are cached between runs")
    overwrite_cache: bool = option(False, "rebuild the cached features")


@dataclass(frozen=True)
class ModelSettings:
    """The encoder, its windows, and which head it has."""

    model_type: str = option(
        "", "family of the encoder (bert, roberta, xlnet, ...), if its config.json does not name it"
    )
    model_name_or_path: str = option("", "encoder: a name on the Hugging Face hub, or a folder", common=True)
    head: str = option(
        "",
        "head: crf, softmax, crf_per_type, span, global_pointer, biaffine, or your own as module:Class; default: that "
        "of the script",
        common=True,
    )
    config_name: str = option("", "config of the encoder, if it is elsewhere: name, folder or file")
    tokenizer_name: str = option("", "tokenizer, if it is elsewhere: name, folder or vocabulary file")
    cache_dir: str = option("", "folder for downloaded encoders")
    from_scratch: bool = option(False, "start from random weights: only the config and the tokenizer are read")
    do_lower_case: bool = option(False, "lower-case the text, for uncased encoders", common=True)
    casing: bool = option(False, "tell an uncased encoder by token types which words are capitalised")
    train_max_seq_length: int = option(
        128, "tokens per training window; longer texts are split into several windows", common=True, at_least=1
    )
    eval_max_seq_length: int = option(
        0,
        f"tokens per window in evaluation and prediction; 0: that of the trained model, or {EVAL_WINDOW}",
        common=True,
        at_least=0,
    )
    window_overlap: int = option(
        -1,
        "word pieces shared by neighbouring windows; -1: that of the trained model, or a quarter of a window",
        at_least=-1,
    )
    document_context: bool = option(
        False, "show the neighbouring sentences of the same document around each sentence, as context"
    )
    context_size: int = option(
        0,
        "tokens of context on each side of a sentence, at most; 0: as many as fit into the window",
        needs={"document_context": [True]},
        at_least=0,
    )
    context_dropout: float = option(
        0.0,
        "in training, show a sentence without its context with this probability, drawn in each epoch",
        needs={"document_context": [True]},
        at_least=0,
        at_most=1,
    )


@dataclass(frozen=True)
class MachineSettings:
    """Devices, processes and precision."""

    no_cuda: bool = option(False, "use the CPU even if there is a GPU", common=True)
    local_rank: int = option(-1, "set by torch.distributed.launch", at_least=-1)
    ddp_timeout: int = option(
        3600,
        "seconds that a process waits for the others, for example during a download, before the run fails",
        at_least=1,
    )
    shard_optimizer: bool = option(False, "shard the optimiser state over the processes (ZeRO stage 1)")
    fp16: bool = option(False, "mixed precision in float16 with loss scaling", common=True)
    fp16_backend: str = option(
        "auto",
        "auto: apex if it is installed with amp, otherwise PyTorch's native mixed precision",
        ["auto", "native", "apex"],
        needs={"fp16": [True]},
    )
    fp16_opt_level: str = option(
        "O1", "optimisation level of apex.amp", ["O0", "O1", "O2", "O3"], needs={"fp16": [True]}
    )
    bf16: bool = option(False, "mixed precision in bfloat16", common=True)
    tf32: bool = option(False, "use TensorFloat-32 for float32 matrix products, on GPUs that support it")
    gradient_checkpointing: bool = option(False, "save memory by recomputing each layer in the backward pass")
    torch_compile: bool = option(False, "compile the model for training and evaluation")
    torch_compile_backend: str = option(
        "inductor",
        "with torch_compile: eager and aot_eager need no C++ compiler",
        needs={"torch_compile": [True]},
    )


@dataclass(frozen=True)
class Settings:
    """All settings of a run, validated together.

    `Settings.of` makes one from flag names, `replace` a changed copy.

    Args:
        head: options of the head, an instance of its ``Options``.

    Raises:
        ValueError: names all settings that are out of bounds, have no effect or contradict each other.
    """

    actions: ActionSettings = ActionSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    word_states: WordStateOptions = field(default_factory=WordStateOptions)
    head: Any = field(default_factory=NoOptions)
    optimisation: OptimisationSettings = field(default_factory=OptimisationSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    machine: MachineSettings = MachineSettings()

    def __post_init__(self) -> None:
        optimisation, machine, reported = self.optimisation, self.machine, self.logging.reporters
        faults = list(faults_of(vars(self).values()))
        if machine.fp16 and machine.bf16:
            faults.append("--fp16 and --bf16 exclude each other")
        if self.model.casing and optimisation.freeze_embeddings:
            faults.append(
                "--casing adds embeddings that must be trained, but --freeze_embeddings freezes them: use one"
            )
        if optimisation.max_steps < 0 and optimisation.num_train_epochs == 0:
            epochs = optimisation.num_train_epochs
            faults.append(f"--num_train_epochs {epochs} trains nothing; leave out --do_train instead")
        if not ((checkpoints := self.actions.predict_checkpoints) in ("", "all") or checkpoints.isdigit()):
            faults.append(f"--predict_checkpoints {checkpoints} is neither a step nor all")
        if not set(reported) <= set(REPORTERS):
            report_to = self.logging.report_to
            faults.append(f"--report_to {report_to}: expected none alone, or some of {', '.join(REPORTERS)}")
        if optimisation.warmup_steps and optimisation.warmup_proportion not in (
            0,
            type(optimisation).warmup_proportion,
        ):
            faults.append("--warmup_steps and --warmup_proportion exclude each other")
        if faults:
            raise ValueError("; ".join(faults))

    @classmethod
    def of(cls, head: type = NoOptions, /, **flags: Any) -> "Settings":
        """Settings from flag names: ``Settings.of(BertCrfForNer.Options, task_name="cner", seed=1)``.

        Args:
            head: the class of the head's options.
        """
        return cls(head=head()).replace(**flags)

    def replace(self, **changes: Any) -> "Settings":
        """A copy with some flags changed.

        Raises:
            TypeError: there is no flag of this name.
        """
        parts = {}
        for subject, part in vars(self).items():
            own = {one.name: changes.pop(one.name) for one in fields(part) if one.name in changes}
            parts[subject] = replace(part, **own)
        if changes:
            raise TypeError(f"there is no setting {', '.join(changes)}")
        return type(self)(**parts)

    def flat(self) -> dict[str, Any]:
        """All settings by flag name, as in a config file; ``local_rank``, which differs by process, is left out."""
        values = {name: value for part in vars(self).values() for name, value in vars(part).items()}
        del values["local_rank"]
        return values


def require(settings: Settings, *names: str) -> None:
    """Raise a ValueError that names the missing flags."""
    missing = [f"--{name}" for name in names if not settings.flat()[name]]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given")
