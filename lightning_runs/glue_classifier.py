"""Config, tokenizer and model of a text classifier, from an encoder or from a trained folder."""

import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tools.heads import is_encoder
from tools.loading import check_source, check_vocabulary, load_config, load_tokenizer, positions_of
from tools.settings import ModelSettings
from tools.weights import read_model

logger = logging.getLogger(__name__)


def load_classifier_and_tokenizer(
    settings: ModelSettings,
    classes: Sequence[str],
    do_train: bool,
    adapt_config: Callable[[PreTrainedConfig], None] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The classifier in ``model_name_or_path``, or its encoder with a new head.

    Args:
        classes: names of the classes; without any, the model gives a score.
        do_train: whether the head may be a new one.
        adapt_config: changes the encoder's config, for instance its dropout.

    Raises:
        ValueError: weights are missing and not meant to be, or the parts do not belong together.
    """
    source = settings.model_name_or_path
    check_source(source, do_train, settings.from_scratch)
    config = load_config(settings, source)
    former, held = dict(config.id2label or {}), (config.architectures or ["no head"])[0]
    is_classifier = held.endswith("ForSequenceClassification")
    if not do_train and not is_classifier:
        raise ValueError(f"{source} holds {held}, not a classifier of texts")
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
        logger.info("%s holds %s: its encoder is taken, and the head is new", source, held)
        _reset_head(model)
    return model, tokenizer


def _reset_head(model: PreTrainedModel) -> None:
    for name, part in model.named_children():
        for module in part.modules() if name != model.base_model_prefix else ():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
                nn.init.zeros_(module.bias)


def fitting_length(wanted: int, model: PreTrainedModel) -> int:
    """Tokens of a text: no more than the positions that the encoder knows."""
    if 0 < (positions := positions_of(model)) < wanted:
        logger.info("max_seq_length %d is more than the encoder's %d positions: lowered", wanted, positions)
        return positions
    return wanted


def _load(settings: ModelSettings, source: str, config: PreTrainedConfig, do_train: bool) -> PreTrainedModel:
    if do_train and settings.from_scratch:
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    else:
        model = read_model(AutoModelForSequenceClassification, source, config, do_train, settings.cache_dir or None)
    if config.model_type == "xlnet":
        model.get_parameter("transformer.mask_emb").requires_grad_(
            False
        )  # serves pretraining only; DDP would wait for its gradient
    return model


def takes_token_types(model: PreTrainedModel) -> bool:
    """Whether the model tells the two texts of a pair apart by token types; RoBERTa and DistilBERT do not."""
    return "token_type_ids" in inspect.signature(model.forward).parameters
