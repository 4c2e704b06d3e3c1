"""Load config, tokenizer and model of a text classifier, from an encoder or a trained model."""

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tools.heads import is_encoder, read_model
from tools.loading import check_source, check_vocabulary, compile_model, load_config, load_tokenizer, positions_of
from tools.run import Run
from tools.settings import ModelSettings

logger = logging.getLogger(__name__)


def load_classifier_and_tokenizer(
    run: Run,
    classes: Sequence[str],
    source: str | None = None,
    adapt_config: Callable[[PreTrainedConfig], None] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the classifier that the run trains or applies, on its device, and its tokenizer.

    Args:
        run: loads the encoder or classifier of ``model_name_or_path`` when training, else the classifier of
            ``output_dir``.
        classes: names of the classes; empty for a regression.
        source: folder to load instead.
        adapt_config: function that changes the encoder's config, for example its dropout.

    Raises:
        ValueError: weights are missing without ``from_scratch``, or model, tokenizer and classes do not match.
    """
    settings, do_train = run.settings.model, run.settings.actions.do_train
    source = source or (settings.model_name_or_path if do_train else run.settings.actions.output_dir)
    check_source(source, do_train, settings.from_scratch)
    config = load_config(settings, source)
    former, held = dict(config.id2label or {}), (config.architectures or ["no head"])[0]
    is_classifier = held.endswith("ForSequenceClassification")
    if not do_train and not is_classifier:
        raise ValueError(f"{source} holds {held}, not a text classifier")
    if adapt_config is not None:
        adapt_config(config)
    config.id2label = dict(enumerate(classes or ["LABEL_0"]))
    config.label2id = {name: index for index, name in config.id2label.items()}
    config.problem_type = "single_label_classification" if classes else "regression"
    if not do_train and former != config.id2label:
        raise ValueError(f"{source} was trained for {', '.join(former.values())}, not for {', '.join(classes)}")
    tokenizer = load_tokenizer(settings, source, config)
    check_vocabulary(tokenizer, config)
    model = _load(settings, source, config, do_train)
    if (
        do_train
        and not settings.from_scratch
        and not is_classifier
        and not is_encoder(config.architectures, Path(source))
    ):
        logger.info("%s holds %s: using its encoder with a new head", source, held)
        _reset_head(model)
    nn.Module.to(model, run.device)
    compile_model(run.settings.machine, run.n_gpu, model)
    return model, tokenizer


def _reset_head(model: PreTrainedModel) -> None:
    for name, part in model.named_children():
        for module in part.modules() if name != model.base_model_prefix else ():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
                nn.init.zeros_(module.bias)


def fitted_run(run: Run, model: PreTrainedModel) -> Run:
    """Copy of the run with window lengths limited to the encoder's positions."""
    wanted = run.train_max_seq_length
    if 0 < (positions := positions_of(model)) < wanted:
        logger.info("max_seq_length %d exceeds the encoder's %d positions: reduced", wanted, positions)
        return replace(run, train_max_seq_length=positions)
    return run


def _load(settings: ModelSettings, source: str, config: PreTrainedConfig, do_train: bool) -> PreTrainedModel:
    if do_train and settings.from_scratch:
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    else:
        model = read_model(AutoModelForSequenceClassification, source, config, do_train, settings.cache_dir or None)
    if config.model_type == "xlnet":
        unused = model.get_parameter("transformer.mask_emb")  # pretraining only; DDP would wait for its gradient
        unused.requires_grad_(False)
    return model


def takes_token_types(model: PreTrainedModel) -> bool:
    """Whether the model distinguishes the texts of a pair by token types; RoBERTa and DistilBERT do not."""
    return "token_type_ids" in inspect.signature(model.forward).parameters
