"""Config, tokenizer and model of a run: from an encoder, from scratch, or from a trained folder."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from models import BertCrfForNer
from models.tagger import Tagger
from processors.alignment import drops_spaces_between_words, vocabulary_of
from processors.tag_schemes import MARKUPS, OUTSIDE, legal_transitions, split_tag
from tools.arguments import ModelArguments, NerArguments
from tools.casing import casing_types, tell_casing
from tools.data import corpus_of
from tools.distributed import main_process_first
from tools.preparation import compile_model
from tools.weights import read_model

logger = logging.getLogger(__name__)
AnyTagger = TypeVar("AnyTagger", bound=Tagger)

_CONFIG_FILES = ("config.json", "bert_config.json")
_WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
_NO_NAMES = "LABEL_"
_GET_TOKENIZER = "copy the tokenizer files of the encoder there, or name another folder with --tokenizer_name"


def load_model_and_tokenizer(
    args: NerArguments,
    model_class: type[AnyTagger],
    source: str | None = None,
    adapt_config: Callable[[PreTrainedConfig], None] | None = None,
) -> tuple[AnyTagger, PreTrainedTokenizerBase]:
    """What the run trains or applies.

    From it follow ``label_list``, ``markup``, ``model_type`` and ``casing_types`` of the arguments.

    Args:
        args: the encoder of ``model_name_or_path`` when training, else the trained model of ``output_dir``.
        model_class: the tagger.
        source: a folder to load instead, for instance a checkpoint.
        adapt_config: changes the encoder's config, for instance its dropout.

    Raises:
        ValueError: weights are missing and not meant to be, or the parts do not belong together.
    """
    source = source or (args.model_name_or_path if args.do_train else args.output_dir)
    check_source(source, args.do_train, args.from_scratch)
    with main_process_first():  # downloads
        config = load_config(args, source)
        if adapt_config is not None:
            adapt_config(config)
        former_labels = _label_names(config)
        tokenizer = load_tokenizer(args, source, config)
        _set_labels(args, model_class, config)
        if args.do_train and args.from_scratch:
            model = model_class(config)
        else:
            model = read_model(model_class, source, config, new_head=args.do_train, cache_dir=args.cache_dir or None)
        _fit_lengths(args, model)
        if former_labels and former_labels != args.label_list:
            logger.info("%s was trained for other labels: its head starts anew", source)
            model.reset_head()
        tell_casing(args, model, tokenizer)
    check_vocabulary(tokenizer, config)
    _check_same_vocabulary(args, config, tokenizer)
    return model, tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Raises a ValueError where the tokenizer gives ids that the encoder has no embedding for."""
    entries = getattr(config, "vocab_size", len(tokenizer))  # CANINE hashes characters, so that all have an embedding
    if len(tokenizer) > entries:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} entries, the encoder {entries}; they do not belong together"
        )


def _check_same_vocabulary(args: NerArguments, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer of a trained model is the one that it learnt with."""
    entries = sorted(vocabulary_of(tokenizer).items(), key=lambda entry: entry[1])
    digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]
    if args.do_train:
        config.vocabulary_digest = digest
    elif getattr(config, "vocabulary_digest", digest) != digest:
        raise ValueError("the tokenizer has another vocabulary than the model was trained with; put the old one back")


def check_source(source: str, do_train: bool, from_scratch: bool) -> None:
    """Raises a ValueError where ``source`` cannot hold the encoder to train, or the trained model to apply."""
    folder = Path(source)
    if not do_train and not has_weights(folder):
        raise ValueError(f"{folder} holds no trained model; add --do_train, or name the run in --output_dir")
    if not folder.exists() and (source.startswith(("/", ".", "~")) or source.count("/") > 1):  # no name on the hub
        raise ValueError(f"{folder}: there is no such folder (--model_name_or_path)")
    if not do_train or from_scratch or not folder.is_dir():
        return
    if not has_weights(folder):
        message = f"{folder} has no weights ({', '.join(_WEIGHT_FILES[:2])}), so training would start from random ones"
        raise ValueError(f"{message}; if that is meant, add --from_scratch")


def has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _WEIGHT_FILES)


def load_config(args: ModelArguments, source: str) -> PreTrainedConfig:
    """The config in ``source``, or what ``config_name`` names; ``model_type`` says the family where it does not."""
    name = args.config_name or source
    path = next((file for file in _config_candidates(Path(name)) if file.is_file()), None)
    if path is None:
        if Path(name).is_dir():
            raise ValueError(f"{name} has no {' or '.join(_CONFIG_FILES)}")
        return AutoConfig.from_pretrained(name, cache_dir=args.cache_dir or None)
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not the config of an encoder: {error}") from error
    found, asked = values.pop("model_type", ""), args.model_type.lower()  # folders of old do not say
    if not (found or asked):
        raise ValueError(f"{path} does not say of which family the encoder is; name it with --model_type")
    if found and asked and found != asked:
        raise ValueError(f"--model_type {args.model_type}, but {path} is of an encoder of the family {found}")
    return AutoConfig.for_model(found or asked, **values)


def _config_candidates(name: Path) -> list[Path]:
    return [name] if name.is_file() else [name / file for file in _CONFIG_FILES]


def load_tokenizer(args: ModelArguments, source: str, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer in ``source``, or what ``tokenizer_name`` names, so that words keep the space before them."""
    name = args.tokenizer_name or source
    options: dict[str, Any] = {"do_lower_case": True} if args.do_lower_case else {}
    if Path(name).is_file():
        if config.model_type not in ("bert", "electra", "distilbert"):
            raise ValueError(f"--tokenizer_name {name} is a file; for {config.model_type} name a folder")
        return BertTokenizer(name, do_lower_case=args.do_lower_case)
    options |= {"config": config, "cache_dir": args.cache_dir or None}
    missing = f"{name} has no tokenizer for {config.model_type}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        if drops_spaces_between_words(tokenizer):
            tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True, **options)
    except ImportError as error:
        raise ValueError(f"the tokenizer of {name} does not load: {error}") from error  # it says what to install
    except Exception as error:  # of any kind: each tokenizer fails in its own way where files are missing
        reason = " ".join(str(error).split())
        raise ValueError(f"{missing} that loads ({reason}); {_GET_TOKENIZER}") from error
    files = type(tokenizer).vocab_files_names
    if files and not vocabulary_of(tokenizer).keys() - tokenizer.added_tokens_encoder.keys() - {"▁"}:
        raise ValueError(f"{missing}: {' or '.join(sorted(files.values()))} is not there or empty; {_GET_TOKENIZER}")
    if args.do_lower_case and tokenizer.tokenize("A") != tokenizer.tokenize("a"):
        logger.warning("--do_lower_case has no effect on %s, which keeps case", type(tokenizer).__name__)
    return tokenizer


def adopt_model(args: NerArguments, model: Tagger) -> None:
    """Makes labels, tag scheme and window lengths those of the model, and moves it to the device of the run.

    Where asked to, it is compiled too.
    """
    args.label_list = model.tag_names
    args.markup = _markup_of(model.config, args.markup)
    args.model_type = model.config.model_type
    args.casing_types = casing_types(model)
    _fit_lengths(args, model)
    nn.Module.to(model, args.device)
    compile_model(args, model)


def _set_labels(args: NerArguments, model_class: type[Tagger], config: PreTrainedConfig) -> None:
    """Takes the labels of a trained tagger, or gives those of the corpus to a new one."""
    args.model_type = config.model_type
    if args.do_train:
        args.label_list = corpus_of(args).label_list(args.markup)
        config.id2label = dict(enumerate(args.label_list))
        config.label2id = {label: index for index, label in config.id2label.items()}
        config.tag_markup = args.markup
        config.word_unit = corpus_of(args).trained_word_unit()
        if issubclass(model_class, BertCrfForNer):
            config.crf_legal = _followers(args.label_list, args.markup) if args.crf_constraints else None
        else:
            config.tag_loss = args.loss_type
        return
    args.label_list = _label_names(config)
    if not args.label_list:
        count = len(config.id2label or {})
        raise ValueError(f"the config of {args.output_dir} does not name its {count} labels in id2label; add them")
    args.markup = config.tag_markup = _markup_of(config, args.markup)
    if args.labels and set(corpus_of(args).label_list(args.markup)) != set(args.label_list):
        raise ValueError(
            f"--labels {args.labels} has other labels than the trained model: {', '.join(args.label_list)}"
        )
    if not args.crf_constraints:
        config.crf_legal = None


def _label_names(config: PreTrainedConfig) -> list[str]:
    """The labels that a config names, in order; none where they are only numbered."""
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    return [] if all(name.startswith(_NO_NAMES) for name in names) else names


def _markup_of(config: PreTrainedConfig, default: str) -> str:
    """The tag scheme of a model's labels: as it was saved, or as their prefixes have it."""
    saved = getattr(config, "tag_markup", None)
    if saved:
        return str(saved)
    prefixes = {split_tag(name)[0] for name in _label_names(config)} - {OUTSIDE}
    fitting = [markup for markup, scheme in MARKUPS.items() if prefixes <= set(scheme.prefixes)]
    return fitting[0] if prefixes and fitting else default


def _followers(tags: list[str], markup: str) -> list[list[int]]:
    """For each tag and the start of a text, the ids of what may follow; the end counts as one tag more than there are.

    The form in which `models.BertCrfForNer` finds the legal transitions in its config.
    """
    legal = legal_transitions(tags, MARKUPS[markup])
    return [np.flatnonzero(row).tolist() for row in legal[:-1]]


def _fit_lengths(args: NerArguments, model: Tagger) -> None:
    """Windows are no longer than the positions that the encoder knows; texts are cut into more of them, not lost."""
    if args.do_train and args.from_scratch:
        model.config.trained_positions = args.train_max_seq_length  # the others keep their random embeddings
    positions = positions_of(model)
    for name in ["train_max_seq_length"] * args.do_train + ["eval_max_seq_length"]:
        if positions and getattr(args, name) > positions:
            chosen = getattr(args, name) != getattr(type(args), name)  # a default gives way without a word
            message = "%s %d is more than the encoder's %d positions: lowered"
            logger.log(logging.INFO if chosen else logging.DEBUG, message, name, getattr(args, name), positions)
            setattr(args, name, positions)


def positions_of(model: PreTrainedModel) -> int:
    """Tokens of the longest window; 0 where there is no limit."""
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    paddings = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    positions = max(0, getattr(model.config, "max_position_embeddings", None) or 0)
    positions -= max(paddings, default=-1) + 1  # they are counted from behind the padding's
    trained = getattr(model.config, "trained_positions", None) or positions
    return min(positions, trained) or trained
