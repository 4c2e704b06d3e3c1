"""Config, tokenizer and model of a run: from an encoder, from scratch, or from a trained folder."""

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

from common.tag_schemes import markup_of_tags
from models.heads.flat import FlatTagger
from models.tagger import LabelSpace, Tagger
from processors.features.alignment import drops_spaces_between_words, vocabulary_of
from processors.tasks import task_named
from tools.distributed import is_main, main_process_first
from tools.heads import check_head, head_of, is_built_in, is_encoder, missing_folder
from tools.labels import difference, label_names, labels_of, name_labels, shortened, use_labels
from tools.preparation import casing_types, compile_model, tell_casing
from tools.run import Run
from tools.settings import EVAL_WINDOW, ModelSettings, Settings
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
_LEFT_TO_FOLDER = {"eval_max_seq_length": 0, "window_overlap": -1, "word_unit": ""}  # values of flags not given
_ALIKE = 0.9  # share of sentences; below, raw text is predicted badly
_GET_TOKENIZER = "copy the tokenizer files of the encoder there, or name another folder with --tokenizer_name"


def load_model_and_tokenizer(
    run: Run,
    head: type[AnyTagger],
    source: str | None = None,
    adapt_config: Callable[[PreTrainedConfig], None] | None = None,
) -> tuple[Run, AnyTagger, PreTrainedTokenizerBase]:
    """The model that the run trains or applies, its tokenizer, and the run with the model's labels, windows and words.

    A trained model is applied with the windows and words that its config names, unless the flags give others. When
    training, a trained model keeps its head where the folder holds this head for the same labels, in whatever order;
    otherwise only the encoder is taken, and a message says so.

    Args:
        run: the encoder of ``model_name_or_path`` when training, else the trained model of ``output_dir``.
        head: the class of the tagger.
        source: a folder to load instead, for instance a checkpoint.
        adapt_config: changes the encoder's config, for instance its dropout.

    Raises:
        ValueError: weights are missing and not meant to be, the folder holds another head than is to be applied, or the
            parts do not belong together.
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
            run = _with_learned_words(run, config)
            model = _tagger_to_train(run, head, config, source)
        else:
            model = _trained_tagger(run, head, config, source)
        run = _with_lengths_and_words(_with_labels(run, model), model)
        run = replace(run, casing_types=tell_casing(settings, model, tokenizer))
    check_vocabulary(tokenizer, config)
    _check_same_vocabulary(do_train, config, tokenizer)
    return run, model, tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Raises a ValueError where the tokenizer gives ids that the encoder has no embedding for."""
    entries = getattr(config, "vocab_size", len(tokenizer))  # CANINE hashes characters, so that all have an embedding
    if len(tokenizer) > entries:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} entries, the encoder {entries}; they do not belong together"
        )


def _check_same_vocabulary(do_train: bool, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer of a trained model is the one that it learnt with."""
    entries = sorted(vocabulary_of(tokenizer).items(), key=lambda entry: entry[1])
    digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]
    lowers_case = tokenizer.tokenize("A") == tokenizer.tokenize("a")
    if do_train:
        config.vocabulary_digest = digest
        config.lowers_case = lowers_case
    elif getattr(config, "vocabulary_digest", digest) != digest:
        raise ValueError("the tokenizer has another vocabulary than the model was trained with; put the old one back")
    elif getattr(config, "lowers_case", lowers_case) != lowers_case:
        logger.warning("--do_lower_case: the model was trained and evaluated without, and its folder keeps that")


def check_source(source: str, do_train: bool, from_scratch: bool) -> None:
    """Raises a ValueError where ``source`` cannot hold the encoder to train, or the trained model to apply."""
    folder = Path(source)
    if not do_train and not has_weights(folder):
        what = f"{folder} holds no trained model" if folder.is_dir() else missing_folder(source)
        raise ValueError(f"{what}; add --do_train, or name the run in --output_dir")
    if not folder.exists() and (source.startswith(("/", ".", "~")) or source.count("/") > 1):  # no name on the hub
        raise ValueError(f"--model_name_or_path {source}: {missing_folder(source)}")
    if not do_train or from_scratch or not folder.is_dir():
        return
    if not has_weights(folder):
        message = f"{folder} has no weights ({', '.join(_WEIGHT_FILES[:2])}), so training would start from random ones"
        raise ValueError(f"{message}; if that is meant, add --from_scratch")


def has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _WEIGHT_FILES)


def load_config(settings: ModelSettings, source: str) -> PreTrainedConfig:
    """The config in ``source``, or what ``config_name`` names; ``model_type`` says the family where it does not."""
    name = settings.config_name or source
    path = next((file for file in _config_candidates(Path(name)) if file.is_file()), None)
    if path is None:
        if Path(name).is_dir():
            raise ValueError(f"{name} has no {' or '.join(_CONFIG_FILES)}")
        return _config_of_hub(name, settings.cache_dir)
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not the config of an encoder: {error}") from error
    found, asked = values.pop("model_type", ""), settings.model_type.lower()  # folders of old do not say
    if not (found or asked):
        raise ValueError(f"{path} does not say of which family the encoder is; name it with --model_type")
    if found and asked and found != asked:
        raise ValueError(f"--model_type {settings.model_type}, but {path} is of an encoder of the family {found}")
    return AutoConfig.for_model(found or asked, **values)


def _config_of_hub(name: str, cache_dir: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(name, cache_dir=cache_dir or None)
    except (OSError, ValueError) as error:
        offline = "not in the local cache, and the hub may not be asked (HF_HUB_OFFLINE)"
        hub = offline if HF_HUB_OFFLINE else str(error).strip().partition("\n")[0].rstrip(".")
        advice = "name a folder with config.json, weights and tokenizer, or a model on huggingface.co"
        raise ValueError(f"{name}: {missing_folder(name)}; as a model on huggingface.co: {hub}; {advice}") from error


def _config_candidates(name: Path) -> list[Path]:
    return [name] if name.is_file() else [name / file for file in _CONFIG_FILES]


def load_tokenizer(settings: ModelSettings, source: str, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer in ``source``, or what ``tokenizer_name`` names, so that words keep the space before them."""
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
        raise ValueError(f"the tokenizer of {name} does not load: {error}") from error  # it says what to install
    except Exception as error:  # of any kind: each tokenizer fails in its own way where files are missing
        reason = " ".join(str(error).split())
        raise ValueError(f"{missing} that loads ({reason}); {_GET_TOKENIZER}") from error
    files = type(tokenizer).vocab_files_names
    if files and not vocabulary_of(tokenizer).keys() - tokenizer.added_tokens_encoder.keys() - {"▁"}:
        raise ValueError(f"{missing}: {' or '.join(sorted(files.values()))} is not there or empty; {_GET_TOKENIZER}")
    if settings.do_lower_case and tokenizer.tokenize("A") != tokenizer.tokenize("a"):
        logger.warning("--do_lower_case has no effect on %s, which keeps case", type(tokenizer).__name__)
    return tokenizer


def adopt_model(run: Run, model: Tagger) -> Run:
    """Moves the model to the device of the run, compiles it where asked to, and names its labels.

    Returns:
        The run with labels, tag scheme, windows and words of the model.
    """
    source = model.name_or_path or "the model"
    name_labels(model.config, source, run.settings.data.task_name)
    labels = labels_of(type(model), model.config, source)
    use_labels(model, labels, [label for label in labels if label])
    run = replace(_with_lengths_and_words(_with_labels(run, model), model), casing_types=casing_types(model))
    nn.Module.to(model, run.device)
    compile_model(run.settings.machine, run.n_gpu, model)
    return run


def _trained_tagger(run: Run, head: type[AnyTagger], config: PreTrainedConfig, source: str) -> AnyTagger:
    """The tagger that a folder holds, without labels that mean nothing."""
    check_head(Path(source), head)
    _report_other_settings(run.settings, config)
    name_labels(config, source, run.settings.data.task_name)
    labels, file = labels_of(head, config, source), run.settings.data.labels
    head.override(config, _options(run, head))
    model: AnyTagger = read_model(head, source, config)
    use_labels(model, labels, [label for label in labels if label])
    if file and set(run.corpus.entity_types()) != set(model.types):
        raise ValueError(f"--labels {file} has other types than the trained model: {', '.join(model.types)}")
    return model


def _tagger_to_train(run: Run, head: type[AnyTagger], config: PreTrainedConfig, source: str) -> AnyTagger:
    """A tagger for the types of the corpus: with the head in ``source`` where it is this head for the same labels."""
    stored, former = deepcopy(config), _former_labels(run, head, config, source)
    single_words = task_named(run.corpus.task_name).plain_tags
    head.configure(config, LabelSpace(run.corpus.entity_types(), run.markup, single_words), _options(run, head))
    if not is_built_in(head):
        config.head_source = f"{head.__module__}:{head.__name__}"  # for messages; nothing imports it
    if run.settings.model.from_scratch:
        return head(config)
    wanted = label_names(config)
    if former and label_names(stored) == wanted:
        return read_model(head, source, config)
    if former and set(former) - {""} == set(wanted):
        trained = read_model(head, source, stored)
        use_labels(trained, former, wanted)
        model = head(config)
        model.load_state_dict(trained.state_dict())
        return model
    if former:
        logger.info("Labels changed: reinitialising the head of %s (%s)", source, difference(former, wanted))
    model = read_model(head, source, config, new_head=True)
    if former is not None:
        model.reset_head()
    return model


def _options(run: Run, head: type[Tagger]) -> Any:
    """The options of the head, where the settings are for it, or its defaults."""
    return run.settings.head if isinstance(run.settings.head, head.Options) else head.Options()


def _former_labels(run: Run, head: type[Tagger], config: PreTrainedConfig, source: str) -> list[str] | None:
    """The labels of the head in ``source`` by id, see `tools.labels.labels_of`; empty where it is another head.

    Returns:
        ``None`` where there is no head.
    """
    if run.settings.model.from_scratch or is_encoder(config.architectures, Path(source)):
        return None
    with suppress(ValueError):  # another head, or labels that are not its own: then both are new
        if head_of(config.architectures, Path(source)) is head and (labels := labels_of(head, config, source)):
            return labels
    held = (config.architectures or ["another head"])[0]
    names = shortened(label_names(config)) or "without names"
    message = "%s holds %s with labels %s: taking its encoder, with a new head %s"
    logger.info(message, source, held, names, head.__name__)
    return []


def _with_labels(run: Run, model: Tagger) -> Run:
    """The run with the entity types, the labels and the tag scheme of the model."""
    if isinstance(model, FlatTagger):
        markup = getattr(model.config, "tag_markup", None) or markup_of_tags(model.label_names, run.markup)
        model.config.tag_markup = markup
        run = replace(run, markup=markup)
    return replace(
        run, model_type=model.config.model_type, types=tuple(model.types), encode=model.encode, nests=model.nests
    )


def _with_learned_words(run: Run, config: PreTrainedConfig) -> Run:
    """Learns how raw text becomes words as the corpus has them, uses it for this run and saves it."""
    cutter, share, written_share = run.corpus.learned_cutter()
    config.word_unit, config.kept_words = cutter.unit, list(cutter.kept)
    if is_main():
        message = (
            "Raw text is cut by %r, with %d words kept whole: %.1f %% of train sentences are cut as they are there"
        )
        counts = (cutter.unit, len(cutter.kept), 100 * share, 100 * written_share)
        logger.info(f"{message}, %.1f %% with punctuation attached", *counts)
    if is_main() and share < _ALIKE:
        logger.warning("Raw text is often cut into other words than the corpus has: prefer NerPredictor.tag_words")
    return run.cut_by(cutter.unit, cutter.kept)


def _report_other_settings(settings: Settings, config: PreTrainedConfig) -> None:
    """Says which flags differ from what the trained model was evaluated with; they count for this run only."""
    flags = settings.flat()
    for name, unset in _LEFT_TO_FOLDER.items():
        asked, saved = flags[name], getattr(config, name, None)
        if saved is not None and asked not in (unset, saved):
            message = "--%s %s: the model was evaluated with %s, which its folder keeps for prediction"
            logger.warning(message, name, asked, saved)


def _with_lengths_and_words(run: Run, model: Tagger) -> Run:
    """Settles windows and words: in training they are written into the config, otherwise read from it.

    Windows are no longer than the positions that the encoder knows; texts are cut into more of them, not lost.
    """
    config, flags, do_train = model.config, run.settings.flat(), run.settings.actions.do_train
    if do_train and flags["from_scratch"]:
        config.trained_positions = run.train_max_seq_length  # the others keep their random embeddings
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
        run = replace(run, window_overlap=found["window_overlap"])
        lengths["eval_max_seq_length"] = found["eval_max_seq_length"] or EVAL_WINDOW
    usual = {"train_max_seq_length": ModelSettings.train_max_seq_length, "eval_max_seq_length": EVAL_WINDOW}
    positions = positions_of(model)
    for name, length in lengths.items():
        if 0 < positions < length:
            chosen = length != usual[name] and getattr(run, name) != positions  # a default is lowered without a message
            message = "%s %d is more than the encoder's %d positions: lowered"
            logger.log(logging.INFO if chosen else logging.DEBUG, message, name, length, positions)
            lengths[name] = positions
    run = replace(run, **lengths)  # type: ignore[arg-type]
    if do_train:
        config.eval_max_seq_length, config.window_overlap = run.eval_max_seq_length, run.window_overlap
    return run


def positions_of(model: PreTrainedModel) -> int:
    """Tokens of the longest window; 0 where there is no limit."""
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    paddings = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    positions = max(0, getattr(model.config, "max_position_embeddings", None) or 0)
    positions -= max(paddings, default=-1) + 1  # they are counted from behind the padding's
    trained = getattr(model.config, "trained_positions", None) or positions
    return min(positions, trained) or trained
