"""The bare encoder of any family, and what its config says about it."""

import inspect
from typing import cast

from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel

_MORE_THAN_TEXT = {  # forward parameter -> input that it stands for
    "decoder_input_ids": "input for a decoder",
    "bbox": "page layout",
    "pixel_values": "images",
    "input_features": "audio",
    "xpath_tags_seq": "HTML",
}


def encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Find the class of the bare encoder.

    Raises:
        ValueError: there is none, or it needs other inputs than text.
    """
    found = MODEL_MAPPING.get(type(config), None)
    family = found[0] if isinstance(found, tuple) else found
    if family is None:
        raise ValueError(f"transformers has no encoder for {config.model_type}")
    parameters = inspect.signature(family.forward).parameters
    if more := [what for name, what in _MORE_THAN_TEXT.items() if name in parameters]:
        raise ValueError(f"{config.model_type} models need other inputs than text: {', '.join(more)}")
    return cast(type[PreTrainedModel], family)


def new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Make the bare encoder, without the unused pooler if the family allows it."""
    if config.model_type == "big_bird":  # else the first short batch switches to this permanently
        config.attention_type = "original_full"
    family = encoder_class(config)
    has_pooler = "add_pooling_layer" in inspect.signature(family.__init__).parameters
    encoder = family(config, **({"add_pooling_layer": False} if has_pooler else {}))
    if config.model_type == "xlnet":
        encoder.mask_emb.requires_grad_(False)  # used in pretraining only; DDP would wait for its gradient
    return encoder


def head_dropout(config: PreTrainedConfig) -> float:
    names = ("classifier_dropout", "hidden_dropout_prob", "seq_classif_dropout", "dropout")
    return next((float(value) for name in names if (value := getattr(config, name, None)) is not None), 0.1)


def width_of(config: PreTrainedConfig) -> int:
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None) or getattr(config, "dim", None)
    if width is None:
        raise ValueError(f"the config of {config.model_type!r} has no hidden size (hidden_size, d_model or dim)")
    return int(width)
