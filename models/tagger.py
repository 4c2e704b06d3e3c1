"""What all taggers share: an encoder of any family, the step from word pieces to words, and what a head provides."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from common.entities import Annotation, Entity
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
        logits: ``(B, W, C)`` emissions, the scores of each word.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class Prediction(NamedTuple):
    """What a head finds in one text.

    Args:
        entities: in order of their first words.
        confidences: the probability of exactly each of these entities; empty where they were not asked for.
        tags: the tag of each word, where the head chooses tags.
    """

    entities: list[Entity]
    confidences: list[float]
    tags: list[str] | None = None


@dataclass(frozen=True)
class LabelSpace:
    """What a new head is to find.

    Args:
        types: entity types.
        markup: tag scheme, one of `common.tag_schemes.MARKUPS`, for heads that choose tags.
        single_words: whether every entity is one word, as in part-of-speech tagging.
    """

    types: Sequence[str]
    markup: str
    single_words: bool = False


class Tagger(PreTrainedModel):
    """An encoder and a head over words. A head is a subclass, in one file; see ``docs/heads.md``.

    The encoder sits under its family's own name (``bert``, ``roberta``, ...), so that its pretrained weights load; the
    layer that makes a word's emissions is ``classifier``, as in the token classifiers of transformers.

    A subclass provides `configure`, `encode`, `losses` and `predict`; where it needs them also ``Options``,
    `learning_rates`, `num_scores` and `emissions`. Heads that choose one tag per word derive from
    `models.heads.flat.FlatTagger`, which leaves only losses, decoding and confidences to them.
    """

    Options: ClassVar[type] = NoOptions  # a frozen dataclass of `common.options.option` fields; each becomes a flag
    title: ClassVar[str] = ""  # in reports; by default the name of the class
    script: ClassVar[str] = "run_ner_softmax.py"  # trains it, with --head where it is not the script's own head
    nests: ClassVar[bool] = True  # whether entities that overlap are both found
    unexportable: ClassVar[str] = "ONNX export needs heads that choose one tag per word"  # empty where it can be

    config_class = PreTrainedConfig
    _keys_to_ignore_on_load_missing = _keys_to_ignore_on_load_unexpected = _UNUSED

    def __init__(self, config: PreTrainedConfig) -> None:
        for name in _ATTENTION_SUPPORT:  # a tagger attends as its encoder can; by itself it would choose the slow way
            setattr(self, name, getattr(_encoder_class(config), name, False))
        super().__init__(config)
        encoder = _new_encoder(config)
        self.base_model_prefix = encoder.base_model_prefix
        setattr(self, self.base_model_prefix, encoder)
        self.width = _width(config)  # H, of the encoder's states
        self.dropout = nn.Dropout(_head_dropout(config))
        self.classifier = nn.Linear(self.width, self.num_scores(config))
        self.takes_token_types = "token_type_ids" in inspect.signature(_encoder_class(config).forward).parameters

    @classmethod
    def from_pretrained(cls, name_or_path: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Loads a trained tagger, or an encoder to be trained; its config says which family it is of."""
        if kwargs.get("config") is None:
            kwargs["config"] = AutoConfig.from_pretrained(name_or_path)
        kwargs.setdefault("dtype", torch.float32)  # not that of the file: AdamW needs weights in full precision
        return super().from_pretrained(name_or_path, *args, **kwargs)

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        """Writes into the config of an encoder all that the new head needs; a saved folder keeps it.

        By default ``id2label`` names the entity types.

        Args:
            options: an instance of ``Options``.
        """
        set_label_names(config, labels.types)

    @classmethod
    def override(cls, config: PreTrainedConfig, options: Any) -> None:
        """Changes the config of a trained head where options that count in prediction ask for it."""

    @classmethod
    def read_labels(cls, names: Sequence[str]) -> list[str]:
        """What the labels of a saved folder mean, by id, in this head's terms; empty for those that mean nothing.

        Raises:
            ValueError: labels that cannot be understood.
        """
        return list(names)

    @classmethod
    def num_scores(cls, config: PreTrainedConfig) -> int:
        """C, the number of scores per word."""
        return len(config.id2label or {})

    def learning_rates(self, options: Any) -> dict[str, float]:
        """Peak learning rates by part, the first name of its parameters.

        Parts outside the encoder that are not listed learn at ``--head_learning_rate``, which also replaces the rate of
        ``classifier``; without it they learn at the encoder's.
        """
        return {}

    @property
    def types(self) -> list[str]:
        """The entity types that the head finds."""
        return self.label_names

    @property
    def missing_labels(self) -> list[str]:
        """Labels that entities of its types may need and the head lacks: that of another project may."""
        return []

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of their ids."""
        return [str(name) for _, name in sorted((self.config.id2label or {}).items())]

    def emissions(self, states: Tensor, word_mask: Tensor) -> Tensor:
        """The scores of each word: ``(B, W, H), (B, W) -> (B, W, C)``."""
        return cast(Tensor, self.classifier(self.dropout(states)))

    def encode(self, annotations: Sequence[Annotation]) -> Tensor:
        """Targets ``(B, W, ...)`` of texts or windows; -100 where nothing is known, and beyond the words of a row.

        Where a model lacks the type of an entity, its words count as unknown.
        """
        raise NotImplementedError

    def losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        """The loss of each row, summed over its words: ``(B, W, C), (B, W, ...), (B, W) -> (B,)``.

        Neither masked words nor targets of -100 count.
        """
        raise NotImplementedError

    def predict(self, emissions: Tensor, word_mask: Tensor, with_confidence: bool = False) -> list[Prediction]:
        """What is found in each of B texts, from emissions ``(B, W, C)`` and mask ``(B, W)``."""
        raise NotImplementedError

    def warm_up(self, emissions: Tensor, word_mask: Tensor) -> None:
        """Compiles and initialises what `predict` may need."""
        self.predict(emissions, word_mask, with_confidence=True)

    def log_probabilities(self, emissions: Tensor) -> Tensor:
        """Log-probabilities ``(B, W, C)`` of what a word can be, for losses that compare two passes.

        Raises:
            ValueError: the scores of a word are not those of alternatives.
        """
        raise ValueError(f"{type(self).__name__} has no distribution over the tags of a word; leave out --rdrop_alpha")

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
        """Scores each word, and computes the loss where there are labels.

        Args:
            input_ids, attention_mask, token_type_ids: ``(B, T)``.
            word_positions: ``(B, W)`` index of each word's first piece; without it every token is a word.
            word_mask: ``(B, W)`` true where there is a word, from the left without holes.
            labels: ``(B, W, ...)`` as `encode` makes them; a word of label -100 does not count.
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
        logits = self.emissions(states, word_mask)  # (B, W, C)
        loss = None
        if labels is not None:
            loss = self.losses(logits, labels, word_mask).sum()
            counted = (word_mask & known_words(labels)).sum().clamp(min=1)
            loss = loss / (num_items_in_batch if num_items_in_batch is not None else counted)
        return TaggerOutput(loss=loss, logits=logits)

    def _states(self, inputs: dict[str, Tensor]) -> Tensor:
        """The encoder's states ``(B, T, H)``; a row's do not depend on the padding that its batch gives it."""
        if not self.takes_token_types:
            inputs.pop("token_type_ids", None)
        encoder, mask = getattr(self, self.base_model_prefix), inputs.get("attention_mask")
        if mask is None or self.config.model_type not in _MIXES_PADDING_IN:
            return cast(Tensor, encoder(**inputs)[0])
        states = self.classifier.weight.new_zeros(*mask.shape, self.width)
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
        for name, part in self.named_children():
            if name != self.base_model_prefix:
                part.apply(self._reset)

    def _reset(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=getattr(self.config, "initializer_range", 0.02))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif reset := getattr(module, "reset_parameters", None):
            reset()

    def _init_weights(self, module: nn.Module) -> None:
        reset = getattr(module, "reset_parameters", None)
        if reset and not isinstance(module, nn.Linear | nn.Embedding):
            reset()  # transformers knows few kinds of layers, and would leave the others as they are in memory
        else:
            super()._init_weights(module)

    def select_labels(self, ids: Sequence[int], names: Sequence[str]) -> None:
        """Keeps these labels only, in this order and under these names.

        Raises:
            ValueError: there is no row of ``classifier`` for each label.
        """
        head = self.classifier
        if head.out_features != len(self.label_names):
            raise ValueError(f"{type(self).__name__} cannot leave out or reorder its labels {self.label_names}")
        head.weight, head.bias = (nn.Parameter(part.detach()[list(ids)]) for part in (head.weight, head.bias))
        head.out_features = len(ids)
        set_label_names(self.config, names)


def set_label_names(config: PreTrainedConfig, names: Sequence[str]) -> None:
    """Names the labels by their ids."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}


def known_words(labels: Tensor) -> Tensor:
    """Words of which something is known: ``(B, W, ...) -> (B, W)``."""
    return (labels != -100).reshape(*labels.shape[:2], -1).any(-1)


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
