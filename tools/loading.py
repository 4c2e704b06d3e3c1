"""Load config, tokenizer and model of a run: from an encoder, from scratch, or from a trained model."""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.constants import HF_HUB_OFFLINE
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from models.recalibration import forget_calibration
from models.tagger import Tagger, casing_types
from models.word_states import WordStateOptions
from processors.features.alignment import CASINGS, drops_spaces_between_words, vocabulary_of
from tools import heads
from tools.distributed import is_main, main_process_first
from tools.new_types import former_tagger, keep_types, labels_to_train
from tools.run import Run
from tools.settings import EVAL_WINDOW, MachineSettings, ModelSettings, Settings

logger = logging.getLogger(__name__)
AnyTagger = TypeVar("AnyTagger", bound=Tagger)

_CONFIG_FILES = ("config.json", "bert_config.json")
# Values of flags that are not given.
_LEFT_TO_FOLDER = {"eval_max_seq_length": 0, "window_overlap": -1, "context_size": 0, "word_unit": ""}
_ALIKE = 0.9  # share of sentences; below it, predictions on raw text are poor
_GET_TOKENIZER = "copy the tokenizer files of the encoder there, or name another folder with --tokenizer_name"


def load_model_and_tokenizer(
    run: Run,
    head: type[AnyTagger],
    source: str | None = None,
    adapt_config: Callable[[PreTrainedConfig], None] | None = None,
) -> tuple[Run, AnyTagger, PreTrainedTokenizerBase]:
    """Load the model that the run trains or applies, and its tokenizer.

    When training, a trained head is kept if the folder holds the same kind of head for the same labels, in any order;
    otherwise only the encoder is loaded, and the log says so. When applying a model, window lengths and word splitting
    are those saved in its config, unless flags override them.

    Args:
        run: loads the encoder of ``model_name_or_path`` when training, else the trained model of ``output_dir``.
        head: class of the tagger.
        source: folder to load instead, for example a checkpoint.
        adapt_config: function that changes the encoder's config, for example its dropout.

    Returns:
        A copy of the run with the labels, windows and word splitting of the model; the model; and the tokenizer.

    Raises:
        ValueError: weights are missing without ``from_scratch``, the folder holds another head, or model and tokenizer
            do not match.
    """
    settings, do_train = run.settings, run.settings.actions.do_train
    source = source or (settings.model.model_name_or_path if do_train else settings.actions.output_dir)
    check_source(source, do_train, settings.model.from_scratch)
    with main_process_first():  # downloads
        config = load_config(settings.model, source)
        if adapt_config is not None:
            adapt_config(config)
        tokenizer = load_tokenizer(settings.model, source, config)
        if do_train:
            forget_calibration(config)
            run = _with_learned_words(run, config)
            model = _tagger_to_train(run, head, config, source)
        else:
            model = _trained_tagger(run, head, config, source)
        run = _adapted(run, model)
        run = replace(run, casing_types=tell_casing(settings, model, tokenizer))
    check_vocabulary(tokenizer, config)
    check_same_vocabulary(do_train, model.config, tokenizer)
    return run, model, tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Raise a ValueError if the tokenizer has more entries than the encoder has embeddings."""
    entries = getattr(config, "vocab_size", len(tokenizer))  # CANINE hashes characters and has no vocab_size
    if len(tokenizer) > entries:
        raise ValueError(f"the tokenizer has {len(tokenizer)} entries, the encoder {entries}: they do not match")


def check_same_vocabulary(do_train: bool, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a trained model is used with the tokenizer that it was trained with; record it when training."""
    entries = sorted(vocabulary_of(tokenizer).items(), key=lambda entry: entry[1])
    digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]
    lowers_case = tokenizer.tokenize("A") == tokenizer.tokenize("a")
    if do_train:
        config.lowers_case = lowers_case
    elif getattr(config, "vocabulary_digest", digest) != digest:
        advice = "restore the original tokenizer files"
        raise ValueError(f"the tokenizer's vocabulary differs from that in training; {advice}")
    elif getattr(config, "lowers_case", lowers_case) != lowers_case:
        logger.warning("--do_lower_case differs from the setting in training; the model folder keeps the original one")
    config.vocabulary_digest = digest


def check_source(source: str, do_train: bool, from_scratch: bool) -> None:
    """Raise a ValueError if ``source`` cannot be the encoder to train, or the trained model to apply."""
    folder = Path(source)
    if not do_train:
        heads.check_has_model(source, "add --do_train, or name the run in --output_dir")
    elif not folder.exists() and (source.startswith(("/", ".", "~")) or source.count("/") > 1):  # not a hub name
        raise ValueError(f"--model_name_or_path {source}: {heads.missing_folder(source)}")
    elif folder.is_dir() and not from_scratch and not heads.has_weights(folder):
        message = f"{folder} has no weights ({', '.join(heads.WEIGHT_FILES)})"
        raise ValueError(f"{message}; to start from random weights, add --from_scratch")


def load_config(settings: ModelSettings, source: str) -> PreTrainedConfig:
    """Load the config of ``config_name`` or ``source``; ``model_type`` is used if the config does not name one."""
    name = settings.config_name or source
    path = next((file for file in (Path(name), *(Path(name, one) for one in _CONFIG_FILES)) if file.is_file()), None)
    if path is None:
        if Path(name).is_dir():
            raise ValueError(f"{name} has no {' or '.join(_CONFIG_FILES)}")
        try:
            return _without_code(AutoConfig.from_pretrained(name, cache_dir=settings.cache_dir or None))
        except (OSError, ValueError) as error:
            offline = "not in the local cache, and HF_HUB_OFFLINE is set"
            hub = offline if HF_HUB_OFFLINE else str(error).strip().partition("\n")[0].rstrip(".")
            advice = "name a folder with config.json, weights and tokenizer, or a model on huggingface.co"
            raise ValueError(f"{name}: {heads.missing_folder(name)}; on huggingface.co: {hub}; {advice}") from error
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not the config of an encoder: {error}") from error
    found, asked = values.pop("model_type", ""), settings.model_type.lower()  # missing in old folders
    if not (found or asked):
        raise ValueError(f"{path} has no model_type; give the encoder's family with --model_type")
    if found and asked and found != asked:
        raise ValueError(f"--model_type {settings.model_type} does not match the model_type {found} in {path}")
    return _without_code(AutoConfig.for_model(found or asked, **values))


def _without_code(config: PreTrainedConfig) -> PreTrainedConfig:
    """Forget the code that a published model brings: it is not used here, and a new run folder would not have it."""
    if hasattr(config, "auto_map"):
        del config.auto_map
    return config


def load_tokenizer(settings: ModelSettings, source: str, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``tokenizer_name`` or ``source``, with ``add_prefix_space`` where the family needs it."""
    name = settings.tokenizer_name or source
    options: dict[str, Any] = {"do_lower_case": True} if settings.do_lower_case else {}
    if Path(name).is_file():
        if config.model_type not in ("bert", "electra", "distilbert"):
            raise ValueError(f"--tokenizer_name {name} is a file; for {config.model_type} name a folder")
        return BertTokenizer(name, do_lower_case=settings.do_lower_case)
    options |= {"config": config, "cache_dir": settings.cache_dir or None}
    missing = f"{name} has no tokenizer for {config.model_type}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        if drops_spaces_between_words(tokenizer):
            tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True, **options)
    except ImportError as error:
        raise ValueError(f"the tokenizer of {name} does not load: {error}") from error  # names the missing package
    except Exception as error:  # tokenizers raise various exceptions for missing files
        reason = " ".join(str(error).split())
        raise ValueError(f"{missing} that loads ({reason}); {_GET_TOKENIZER}") from error
    files = type(tokenizer).vocab_files_names
    if files and not vocabulary_of(tokenizer).keys() - tokenizer.added_tokens_encoder.keys() - {"▁"}:
        raise ValueError(f"{missing}: {' or '.join(sorted(files.values()))} is missing or empty; {_GET_TOKENIZER}")
    if settings.do_lower_case and tokenizer.tokenize("A") != tokenizer.tokenize("a"):
        logger.warning("--do_lower_case has no effect on %s, which keeps case", type(tokenizer).__name__)
    return tokenizer


def compile_model(machine: MachineSettings, n_gpu: int, model: PreTrainedModel) -> None:
    """Compile the model in place if enabled, with dynamic shapes. Parameter names do not change.

    Raises:
        ValueError: several GPUs use DataParallel, whose replicas cannot be compiled.
    """
    if not machine.torch_compile or getattr(model, "_compiled_call_impl", None) is not None:
        return
    if n_gpu > 1:
        raise ValueError(f"--torch_compile needs one process per GPU: torchrun --nproc_per_node={n_gpu} ...")
    model.compile(dynamic=True, backend=machine.torch_compile_backend)


def tell_casing(settings: Settings, model: Tagger, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Add casing token types to a model if ``--casing`` is set, and return the casing types of the model.

    Words without capitals keep type 0, as in pretraining; the embeddings of the other types start as copies of type 0.

    Raises:
        ValueError: the encoder has no token type embeddings, or a trained model was trained without casing.
    """
    if settings.model.casing and not casing_types(model):
        if not settings.actions.do_train:
            raise ValueError(f"--casing: the model in {settings.actions.output_dir} was trained without it")
        if tokenizer.tokenize("Rome") != tokenizer.tokenize("rome"):
            logger.warning("--casing is of little use: the tokenizer already distinguishes upper and lower case")
        try:
            model.config.casing_types = [0, *model.add_token_types(CASINGS - 1)]
        except ValueError as error:
            raise ValueError(f"--casing: {error}") from None
    return casing_types(model)


def adopt_model(run: Run, model: Tagger) -> Run:
    """Prepare a loaded model for the run: set its label names, move it to the device, and compile it if enabled.

    Returns:
        A copy of the run with the labels, tag scheme, windows and word splitting of the model.
    """
    source = model.name_or_path or "the model"
    heads.name_labels(type(model), model.config, source, run.settings.data.task_name)
    labels = heads.labels_of(type(model), model.config, source)
    heads.use_labels(model, labels, [label for label in labels if label])
    run = replace(_adapted(run, model), casing_types=casing_types(model))
    nn.Module.to(model, run.device)
    compile_model(run.settings.machine, run.n_gpu, model)
    return run


def _trained_tagger(run: Run, head: type[AnyTagger], config: PreTrainedConfig, source: str) -> AnyTagger:
    """Load a trained tagger, and remove labels without a meaning."""
    heads.head_of_folder(Path(source), head)
    heads.warn_of_lost_crf(config, source)
    _report_other_settings(run.settings, config)
    heads.name_labels(head, config, source, run.settings.data.task_name)
    labels, file = heads.labels_of(head, config, source), run.settings.data.labels
    run.settings.word_states.check_trained(WordStateOptions.of(config), source)
    head.override(config, _options(run, head))
    model: AnyTagger = heads.read_model(head, source, config)
    heads.use_labels(model, labels, [label for label in labels if label])
    if file and set(run.corpus.entity_types()) != set(model.types):
        raise ValueError(f"--labels {file}: types differ from those of the trained model: {', '.join(model.types)}")
    return model


def _tagger_to_train(run: Run, head: type[AnyTagger], config: PreTrainedConfig, source: str) -> AnyTagger:
    """Make a tagger for the types of the corpus, reusing the head of ``source`` if kind and labels are the same."""
    stored, former = deepcopy(config), _former_labels(run, head, config, source)
    kept = former_tagger(head, deepcopy(stored), source, former) if run.settings.model.add_types else None
    labels = labels_to_train(run, kept)
    head.configure(config, labels, _options(run, head))
    if not heads.is_built_in(head):
        config.head_source = f"{head.__module__}:{head.__name__}"  # for messages only, never imported
    wanted = heads.label_names(config)
    same_labels = heads.label_names(stored) == wanted
    keeps_head = bool(former) and (same_labels or {*(former or ())} - {""} == set(wanted))
    _word_states_to_train(run, stored if keeps_head or kept else None, source).write(config)
    if run.settings.model.from_scratch:
        return head(config)
    if keeps_head and same_labels:
        return heads.read_model(head, source, config)
    if former and keeps_head:
        trained = heads.read_model(head, source, stored)
        heads.use_labels(trained, former, wanted)
        model = head(config)
        model.load_state_dict(trained.state_dict())
        return model
    if former and not kept:
        logger.info("Labels changed: reinitialising the head of %s (%s)", source, heads.difference(former, wanted))
    model = heads.read_model(head, source, config, new_head=True)
    if former is not None:
        model.reset_head()
    if kept:
        keep_types(model, kept)
    return model


def _word_states_to_train(run: Run, trained: PreTrainedConfig | None, source: str) -> WordStateOptions:
    """Options of the settings, or of the trained model whose head is kept, but for the word dropout."""
    asked = run.settings.word_states
    if trained is None:
        return asked
    former = WordStateOptions.of(trained)
    asked.check_trained(former, source)
    return replace(former, word_dropout=asked.word_dropout)


def _options(run: Run, head: type[Tagger]) -> Any:
    """Options of the head from the settings, or its defaults if the settings are for another head."""
    return run.settings.head if isinstance(run.settings.head, head.Options) else head.Options()


def _former_labels(run: Run, head: type[Tagger], config: PreTrainedConfig, source: str) -> list[str] | None:
    """Labels by id of the head in ``source``, see `tools.heads.labels_of`.

    Returns:
        ``None`` if there is no head, an empty list if it is a different head or has unusable labels.
    """
    if run.settings.model.from_scratch or heads.is_encoder(config.architectures, Path(source)):
        return None
    with suppress(ValueError):  # a different head, or labels that this head cannot parse
        found = heads.head_of(config.architectures, Path(source))
        if found is head and (labels := heads.labels_of(head, config, source)):
            return labels
    held = (config.architectures or ["another head"])[0]
    names = heads.shortened(heads.label_names(config)) or "without names"
    message = "%s holds %s with labels %s: using its encoder with a new head %s"
    logger.info(message, source, held, names, head.__name__)
    return []


def _with_learned_words(run: Run, config: PreTrainedConfig) -> Run:
    """Learn from the corpus how to split raw text into words, and record it in the run and the config."""
    cutter, share, written_share = run.corpus.learned_cutter()
    config.word_unit, config.kept_words = cutter.unit, list(cutter.kept)
    if is_main():
        message = "Raw text is split by %r, with %d words kept whole: %.1f %% of train sentences are split as annotated"
        counts = (cutter.unit, len(cutter.kept), 100 * share, 100 * written_share)
        logger.info(f"{message}, %.1f %% with punctuation attached", *counts)
    if is_main() and share < _ALIKE:
        logger.warning("Raw text is often split differently from the corpus: prefer NerPredictor.tag_words")
    return run.cut_by(cutter.unit, cutter.kept)


def _report_other_settings(settings: Settings, config: PreTrainedConfig) -> None:
    """Warn of flags that differ from the saved settings of the trained model; they apply to this run only."""
    flags = settings.flat()
    for name, unset in _LEFT_TO_FOLDER.items():
        asked, saved = flags[name], getattr(config, name, None)
        if saved is not None and asked not in (unset, saved):
            message = "--%s %s applies to this run only: the model was evaluated with %s, which its folder keeps"
            logger.warning(message, name, asked, saved)


def _adapted(run: Run, model: Tagger) -> Run:
    """Copy of the run with types, encoding and tag scheme of the model, its windows and its word splitting.

    Windows and word splitting are those of the flags when training, else those in the model's config.

    Windows longer than the encoder's positions are shortened; long texts are then split into more windows.
    """
    config, flags, do_train = model.config, run.settings.flat(), run.settings.actions.do_train
    if do_train and flags["from_scratch"]:
        config.trained_positions = run.train_max_seq_length  # positions beyond stay random
    lengths = {"eval_max_seq_length": run.eval_max_seq_length}
    if do_train:
        lengths["train_max_seq_length"] = run.train_max_seq_length
    else:
        found: dict[str, Any] = {
            name: flags[name] if flags[name] != unset else getattr(config, name, unset)
            for name, unset in _LEFT_TO_FOLDER.items()
        }
        is_saved = found["word_unit"] == getattr(config, "word_unit", None)
        run = run.cut_by(found["word_unit"], getattr(config, "kept_words", ()) if is_saved else ())
        has_context = getattr(config, "context_size", None) is not None
        if flags["document_context"] and not has_context:
            raise ValueError(f"--document_context: the model in {flags['output_dir']} was trained without it")
        context_size = found["context_size"] if has_context else None
        run = replace(run, window_overlap=found["window_overlap"], context_size=context_size)
        lengths["eval_max_seq_length"] = found["eval_max_seq_length"] or EVAL_WINDOW
    usual = {"train_max_seq_length": ModelSettings.train_max_seq_length, "eval_max_seq_length": EVAL_WINDOW}
    positions = positions_of(model)
    for name, length in lengths.items():
        if 0 < positions < length:
            chosen = length != usual[name] and getattr(run, name) != positions  # no message for defaults
            message = "%s %d exceeds the encoder's %d positions: reduced"
            logger.log(logging.INFO if chosen else logging.DEBUG, message, name, length, positions)
            lengths[name] = positions
    if do_train:
        config.eval_max_seq_length, config.window_overlap = lengths["eval_max_seq_length"], run.window_overlap
        if run.context_size is not None:
            config.context_size = run.context_size
        elif hasattr(config, "context_size"):
            del config.context_size
    return replace(
        run,
        model_type=config.model_type,
        markup=model.markup or run.markup,
        types=tuple(model.types),
        encode=model.encode,
        nests=model.nests,
        expressible=model.expressible,
        **lengths,  # type: ignore[arg-type]
    )


def positions_of(model: PreTrainedModel) -> int:
    """Maximum window length in tokens; 0 if there is no limit."""
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    paddings = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    positions = max(0, getattr(model.config, "max_position_embeddings", None) or 0)
    positions -= max(paddings, default=-1) + 1  # position ids start after the padding index
    trained = getattr(model.config, "trained_positions", None) or positions
    return min(positions, trained) or trained
