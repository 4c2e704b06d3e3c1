"""What all taggers share: an encoder of any family, and the step from its word pieces to words."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from common.options import NoOptions

_ATTENTION_SUPPORT = ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn", "_supports_attention_backend")
_UNUSED = [r"\bpooler\."]  # weights that no tagger needs
_MIXES_PADDING_IN = ("canine", "convbert", "fnet", "funnel", "mobilebert", "nystromformer", "yoso")  # into states
_MORE_THAN_TEXT = {  # by the parameters that name it
    "decoder_input_ids": "input for a decoder",
    "bbox": "places on a page",
    "pixel_values": "images",
    "input_features": "audio",
    "xpath_tags_seq": "HTML",
}


@dataclass
class TaggerOutput(ModelOutput):
    """What a tagger returns.

    Args:
        loss: scalar, where labels were given.
        logits: ``(B, W, C)`` scores of each word's tags; the CRF's emissions.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class Tagger(PreTrainedModel):
    """An encoder and a linear layer over words; subclasses add how tags are scored and found.

    The encoder sits under its family's own name (``bert``, ``roberta``, ...), so that its pretrained weights load, and
    the head is ``classifier``, as in the token classifiers of transformers.

    Attributes:
        Options: a frozen dataclass of `common.options.option` fields: the head's own flags.
    """

    Options: ClassVar[type] = NoOptions
    config_class = PreTrainedConfig
    _keys_to_ignore_on_load_missing = _keys_to_ignore_on_load_unexpected = _UNUSED

    def __init__(self, config: PreTrainedConfig) -> None:
        for name in _ATTENTION_SUPPORT:  # a tagger attends as its encoder can; by itself it would choose the slow way
            setattr(self, name, getattr(_encoder_class(config), name, False))
        super().__init__(config)
        encoder = _new_encoder(config)
        self.base_model_prefix = encoder.base_model_prefix
        setattr(self, self.base_model_prefix, encoder)
        self.dropout = nn.Dropout(_head_dropout(config))
        self.classifier = nn.Linear(_width(config), len(config.id2label or {}))
        self.takes_token_types = "token_type_ids" in inspect.signature(_encoder_class(config).forward).parameters

    @classmethod
    def from_pretrained(cls, name_or_path: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Loads a trained tagger, or an encoder to be trained; which family it is of says its config."""
        if kwargs.get("config") is None:
            kwargs["config"] = AutoConfig.from_pretrained(name_or_path)
        kwargs.setdefault("dtype", torch.float32)  # not that of the file: AdamW needs weights in full precision
        return super().from_pretrained(name_or_path, *args, **kwargs)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        word_positions: Tensor | None = None,
        word_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: int | None = None,
    ) -> TaggerOutput:
        """Scores the tags of each word, and the loss where there are labels.

        Args:
            input_ids, attention_mask, token_type_ids: ``(B, T)``.
            word_positions: ``(B, W)`` index of each word's first piece; without it every token is a word.
            word_mask: ``(B, W)`` true where there is a word, from the left without holes.
            labels: ``(B, W)``; a word of label -100 does not count.
            num_items_in_batch: divides the summed loss: the words of the whole optimiser step, over all ranks and
                accumulation rounds; by default the words of this batch.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        states = self._states({name: value for name, value in inputs.items() if value is not None})  # (B, T, H)
        if word_positions is not None:
            index = word_positions.unsqueeze(-1).expand(-1, -1, states.size(-1))
            states = states.gather(1, index)  # (B, W, H)
        elif word_mask is None:
            word_mask = attention_mask.bool() if attention_mask is not None else None
        if word_mask is None:
            word_mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        states = states.to(self.classifier.weight.dtype)  # the head may be more precise than the encoder
        logits = self.classifier(self.dropout(states))  # (B, W, C)
        loss = None
        if labels is not None:
            word_mask = word_mask & (labels != -100)
            loss = self.sequence_losses(logits, labels, word_mask).sum()
            loss = loss / (num_items_in_batch if num_items_in_batch is not None else word_mask.sum().clamp(min=1))
        return TaggerOutput(loss=loss, logits=logits)

    def _states(self, inputs: dict[str, Tensor]) -> Tensor:
        """The encoder's states ``(B, T, H)``; a row's do not depend on the padding that its batch gives it."""
        if not self.takes_token_types:
            inputs.pop("token_type_ids", None)
        encoder, mask = getattr(self, self.base_model_prefix), inputs.get("attention_mask")
        if mask is None or self.config.model_type not in _MIXES_PADDING_IN:
            return cast(Tensor, encoder(**inputs)[0])
        states = self.classifier.weight.new_zeros(*mask.shape, _width(self.config))
        lengths = mask.sum(1)
        for length in lengths.unique().tolist():  # rows of one length together, without padding
            chosen = (lengths == length)[:, None] & mask.bool()  # (B, T)
            extra = max(0, getattr(self.config, "downsampling_rate", 1) - length)  # CANINE takes no fewer tokens
            rows = {name: F.pad(value[chosen].view(-1, length), (0, extra)) for name, value in inputs.items()}
            states[chosen] = encoder(**rows)[0][:, :length].flatten(0, 1).to(states)
        return states

    def add_token_types(self, count: int) -> list[int]:
        """Gives the encoder more token types, and returns them.

        They begin as copies of type 0, so that nothing changes before they have learnt.

        Raises:
            ValueError: the encoder's family has no embeddings of token types.
        """
        encoder = getattr(self, self.base_model_prefix)
        for name, former in list(encoder.named_modules()):
            if name.endswith("token_type_embeddings") and isinstance(former, nn.Embedding):
                types, width = former.weight.shape
                widened = nn.Embedding(types + count, width).to(former.weight)
                with torch.no_grad():
                    widened.weight[:types] = former.weight
                    widened.weight[types:] = former.weight[0]
                encoder.set_submodule(name, widened)
                self.config.type_vocab_size = encoder.config.type_vocab_size = types + count
                return list(range(types, types + count))
        raise ValueError(f"encoders of the family {self.config.model_type} have no embeddings of token types")

    def reset_head(self) -> None:
        """Gives what is not the encoder new random weights."""
        nn.init.normal_(self.classifier.weight, std=getattr(self.config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)

    def select_tags(self, ids: Sequence[int], names: Sequence[str]) -> None:
        """Keeps these tags of the head only, in this order and under these names."""
        head = self.classifier
        head.weight, head.bias = (nn.Parameter(part.detach()[list(ids)]) for part in (head.weight, head.bias))
        head.out_features = len(ids)
        self.config.id2label = dict(enumerate(names))
        self.config.label2id = {name: index for index, name in enumerate(names)}

    @property
    def tag_names(self) -> list[str]:
        """The tags in the order of their ids."""
        return [str(name) for _, name in sorted((self.config.id2label or {}).items())]

    def sequence_losses(self, logits: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """The loss of each sequence, summed over its words: ``(B, W, C), (B, W), (B, W) -> (B,)``."""
        raise NotImplementedError

    def decode(self, logits: Tensor, word_mask: Tensor) -> Tensor:
        """The best tags: ``(B, W, C), (B, W) -> (B, W)``; what stands at masked words means nothing."""
        raise NotImplementedError

    def span_confidences(
        self, logits: Tensor, word_mask: Tensor, spans: Tensor, inside: Tensor, after: Tensor
    ) -> Tensor:
        """The probability that the words of a span have certain tags, and that the next word has one of others.

        Args:
            logits, word_mask: ``(B, W, C)`` and ``(B, W)``.
            spans: ``(N, 3)`` row, first and last word of each span.
            inside: ``(N, L, C)`` true for the tags that the k-th word of the span may have.
            after: ``(N, C)`` true for the tags that the word after the span may have, if there is one.

        Returns:
            ``(N,)``.
        """
        raise NotImplementedError


def _encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of the bare encoder.

    Raises:
        ValueError: there is none, or it takes more than text.
    """
    found = MODEL_MAPPING.get(type(config), None)
    encoder_class = found[0] if isinstance(found, tuple) else found
    if encoder_class is None:
        raise ValueError(f"transformers has no encoder of the family {config.model_type}")
    parameters = inspect.signature(encoder_class.forward).parameters
    if more := [what for name, what in _MORE_THAN_TEXT.items() if name in parameters]:
        raise ValueError(f"models of the family {config.model_type} need more than text: {', '.join(more)}")
    return cast(type[PreTrainedModel], encoder_class)


def _new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The bare encoder, without the pooler that no tagger uses where the family lets it be left out."""
    if config.model_type == "big_bird":  # else its first short batch would change to this for good
        config.attention_type = "original_full"
    encoder_class = _encoder_class(config)
    has_pooler = "add_pooling_layer" in inspect.signature(encoder_class.__init__).parameters
    encoder = encoder_class(config, **({"add_pooling_layer": False} if has_pooler else {}))
    if config.model_type == "xlnet":
        encoder.mask_emb.requires_grad_(False)  # serves pretraining only; DDP would wait for its gradient
    return encoder


def _head_dropout(config: PreTrainedConfig) -> float:
    for name in ("classifier_dropout", "hidden_dropout_prob", "seq_classif_dropout", "dropout"):
        value = getattr(config, name, None)
        if value is not None:
            return float(value)
    return 0.1


def _width(config: PreTrainedConfig) -> int:
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None) or getattr(config, "dim", None)
    if width is None:
        raise ValueError(f"the config of {config.model_type!r} does not say how wide the encoder's states are")
    return int(width)
