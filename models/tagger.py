"""Base class of all taggers: an encoder of any family, pooling of word pieces to words, and the head interface."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from common.entities import Annotation, Entity
from common.options import NoOptions
from models.encoders import encoder_class, head_dropout, new_encoder, width_of
from models.rows import keep_rows
from models.word_states import BiLstm, WordStateOptions, encode, states_of_words, without_some_words

# On a GPU, cuDNN's attention compiles a plan for every new batch size and length, which takes longer than an epoch of
# batches of similar lengths. The other implementations need no plan.
torch.backends.cuda.enable_cudnn_sdp(False)

_ATTENTION_SUPPORT = ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn", "_supports_attention_backend")
_UNUSED = [r"\bpooler\."]  # weights that no tagger needs
# Families whose states depend on padding.
_MIXES_PADDING_IN = ("canine", "convbert", "fnet", "funnel", "mobilebert", "nystromformer", "yoso")


class Prediction(NamedTuple):
    """Prediction of a head for one text.

    Args:
        entities: entities in order of their first words.
        confidences: probability of exactly each of these entities; empty if not requested.
        tags: one tag per word, if the head chooses tags.
    """

    entities: list[Entity]
    confidences: list[float]
    tags: list[str] | None = None


class Uncertainty(NamedTuple):
    """Entropy over the labels of a whole text, in nats, and log-probability of the best ones: ``(B,)`` each."""

    entropy: Tensor
    best: Tensor


@dataclass(frozen=True)
class LabelSpace:
    """Labels of a new head.

    Args:
        types: entity types.
        markup: tag scheme, one of `common.tag_schemes.MARKUPS`, for heads that choose tags.
        single_words: whether every entity is one word, as in part-of-speech tagging.
        count_words: counts the words of each type in the training data, and those of no entity under ``O``.
        unknown_words, unknown_types: whether some training texts are annotated for some words, or types, only.
    """

    types: Sequence[str]
    markup: str
    single_words: bool = False
    count_words: Callable[[], Mapping[str, int]] = dict
    unknown_words: bool = False
    unknown_types: bool = False


class Tagger(PreTrainedModel):
    """An encoder and a head over words. A head is a subclass, in one file; see ``docs/heads.md``.

    The encoder attribute has the name of its family (``bert``, ``roberta``, ...), so that pretrained weights load; the
    layer that computes emissions is ``classifier``, as in the token classifiers of transformers. A head without such a
    layer deletes it and overrides `head_weight`.

    Subclasses implement `configure`, `encode`, `losses` and `predict`, and if needed ``Options``, `learning_rates`,
    `num_scores`, `emissions` and `training_emissions`. Heads that choose one tag per word derive from
    `models.heads.flat.FlatTagger` and implement only losses, decoding and confidences.
    """

    Options: ClassVar[type] = NoOptions  # a frozen dataclass of `common.options.option` fields; each becomes a flag
    title: ClassVar[str] = ""  # name in reports; default: the class name
    script: ClassVar[str] = "run_ner_softmax.py"  # script that trains it, with --head if needed
    nests: ClassVar[bool] = True  # whether it can find overlapping entities
    unexportable: ClassVar[str] = "ONNX export needs heads that choose one tag per word"  # empty: exportable

    config_class = PreTrainedConfig
    _keys_to_ignore_on_load_missing = _keys_to_ignore_on_load_unexpected = _UNUSED

    def __init__(self, config: PreTrainedConfig) -> None:
        for name in _ATTENTION_SUPPORT:  # else transformers falls back to eager attention
            setattr(self, name, getattr(encoder_class(config), name, False))
        super().__init__(config)
        encoder = new_encoder(config)
        self.base_model_prefix = encoder.base_model_prefix
        setattr(self, self.base_model_prefix, encoder)
        self.word_options = WordStateOptions.of(config)
        self.width = width_of(config)  # H, size of the states of words
        if size := self.word_options.bilstm_size:
            self.bilstm = BiLstm(self.width, size)
            self.width = 2 * size
        self.dropout = nn.Dropout(head_dropout(config))
        self.classifier = nn.Linear(self.width, self.num_scores(config))
        self.takes_token_types = "token_type_ids" in inspect.signature(encoder_class(config).forward).parameters

    @classmethod
    def from_pretrained(cls, name_or_path: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Load a trained tagger, or an encoder with a new head. The config determines the encoder family."""
        if kwargs.get("config") is None:
            kwargs["config"] = AutoConfig.from_pretrained(name_or_path)
        kwargs.setdefault("dtype", torch.float32)  # not the file's: AdamW needs full precision
        return super().from_pretrained(name_or_path, *args, **kwargs)

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        """Write all that a new head needs into the encoder's config, which is saved with the model.

        By default, ``id2label`` names the entity types.

        Args:
            config: config of the encoder, changed in place.
            labels: labels to predict.
            options: an instance of ``Options``.
        """
        set_label_names(config, labels.types)

    @classmethod
    def override(cls, config: PreTrainedConfig, options: Any) -> None:
        """Apply options that affect prediction to the config of a trained head."""

    @classmethod
    def read_labels(cls, names: Sequence[str]) -> list[str]:
        """Convert the labels of a saved model to this head's form, by id; empty for labels without a meaning.

        Raises:
            ValueError: labels cannot be parsed.
        """
        return list(names)

    @classmethod
    def num_scores(cls, config: PreTrainedConfig) -> int:
        """Number of scores per word, C."""
        return len(config.id2label or {})

    def learning_rates(self, options: Any) -> dict[str, float]:
        """Peak learning rates by part, where a part is the first component of a parameter's name.

        ``--head_learning_rate`` replaces the rate of ``classifier``, and applies to parts outside the encoder that are
        not listed; without it, these have the encoder's rate.
        """
        return {}

    @property
    def types(self) -> list[str]:
        """Entity types of the head."""
        return self.label_names

    @property
    def missing_labels(self) -> list[str]:
        """Labels of its entity types that the head lacks, which happens with models of other projects."""
        return []

    @property
    def markup(self) -> str:
        """The tag scheme of its labels, one of `common.tag_schemes.MARKUPS`; empty where they are no tags."""
        return ""

    @property
    def label_names(self) -> list[str]:
        """Labels by id."""
        return [str(name) for _, name in sorted((self.config.id2label or {}).items())]

    def emissions(self, states: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the scores of each word: ``(B, W, H), (B, W) -> (B, W, C)``."""
        return cast(Tensor, self.classifier(self.dropout(states)))

    def training_emissions(self, states: Tensor, word_mask: Tensor, targets: Tensor) -> Tensor:
        """Compute the scores in training, where they may depend on the targets ``(B, W, ...)``."""
        return self.emissions(states, word_mask)

    @property
    def head_weight(self) -> Tensor:
        """A weight of the head, which has its precision."""
        return self.classifier.weight

    def expressible(self, entities: Sequence[Entity]) -> list[Entity]:
        """Select the entities of a text that the head can learn and predict together; the others are reported."""
        return list(entities)

    def encode(self, annotations: Sequence[Annotation]) -> Tensor:
        """Encode the annotations of texts or windows as targets ``(B, W, ...)``; -100 for unknown words and padding.

        Words of entities whose type the model lacks count as unknown. Where annotations are not complete for all types,
        targets may have a further dimension.
        """
        raise NotImplementedError

    def losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the loss per row, summed over words: ``(B, W, C), (B, W, ...), (B, W) -> (B,)``.

        Masked words and targets of -100 are ignored.
        """
        raise NotImplementedError

    def predict(self, emissions: Tensor, word_mask: Tensor, with_confidence: bool = False) -> list[Prediction]:
        """Predict entities of B texts from emissions ``(B, W, C)`` and mask ``(B, W)``."""
        raise NotImplementedError

    def candidates(self, emissions: Tensor, word_mask: Tensor, threshold: float) -> list[list[tuple[Entity, float]]]:
        """Find all entities with a probability of at least ``threshold``, whatever the head would predict.

        Probabilities are the confidences of `predict`. Entities of a text may overlap and contradict each other.

        Args:
            emissions, word_mask: ``(B, W, C)`` and ``(B, W)``.
            threshold: more than 0, up to 1.

        Returns:
            Entities with their probabilities, per row, in text order.

        Raises:
            ValueError: the head knows the probabilities of its predictions only.
        """
        raise ValueError(f"{type(self).__name__} gives no probabilities of entities that it does not predict")

    def uncertainty(self, emissions: Tensor, word_mask: Tensor) -> Uncertainty:
        """Compute how unsure the head is of each row: ``(B, W, C), (B, W)``.

        Raises:
            ValueError: the head has no distribution over the labels of a text.
        """
        raise ValueError(f"{type(self).__name__} has no distribution over the labels of a text")

    @property
    def has_candidates(self) -> bool:
        """Whether `candidates` is implemented."""
        return type(self).candidates is not Tagger.candidates

    def compatible(self, entities: Sequence[Entity]) -> list[Entity]:
        """Leave out entities that contradict one that is given before; by default, none do."""
        return list(entities)

    @property
    def confidence_temperatures(self) -> tuple[float, float]:
        """What emissions (or scores of spans) and transitions are divided by for confidences; see `tools.calibrate`."""
        emissions, transitions = getattr(self.config, "confidence_temperatures", (1.0, 1.0))
        return emissions, transitions

    def warm_up(self, emissions: Tensor, word_mask: Tensor) -> None:
        """Compile and initialise everything that `predict` may need."""
        self.predict(emissions, word_mask, with_confidence=True)

    def log_probabilities(self, emissions: Tensor) -> Tensor:
        """Log-probabilities ``(B, W, C)`` of each word's labels, for losses that compare two passes.

        Raises:
            ValueError: the scores of a word do not form a distribution.
        """
        raise ValueError(f"{type(self).__name__} has no distribution over the tags of a word; remove --rdrop_alpha")

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        word_positions: Tensor | None = None,
        word_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: int | None = None,
        word_lengths: Tensor | None = None,
    ) -> TokenClassifierOutput:
        """Compute ``logits (B, W, C)``, the scores of each word, and ``loss``, a scalar, if there are labels.

        Args:
            input_ids, attention_mask, token_type_ids: ``(B, T)``.
            word_positions: ``(B, W)`` index of each word's first piece; default: every token is a word.
            word_mask: ``(B, W)`` true for words, which fill each row from the left.
            labels: ``(B, W, ...)`` from `encode`; words with label -100 are ignored.
            num_items_in_batch: divisor of the summed loss: the words of the whole optimiser step, over all ranks and
                accumulation rounds; default: the words of this batch.
            word_lengths: ``(B, W)`` number of pieces of each word, read only with ``--word_pooling mean``.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        states = self._states({name: value for name, value in inputs.items() if value is not None})  # (B, T, H)
        if word_positions is not None:
            pooling = self.word_options.word_pooling
            states = states_of_words(states, word_positions, word_lengths, pooling)  # (B, W, H)
        elif word_mask is None:
            word_mask = attention_mask.bool() if attention_mask is not None else None
        if word_mask is None:
            word_mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        states = states.to(self.head_weight.dtype)  # the head may have a higher precision
        if self.training and self.word_options.word_dropout:
            states = without_some_words(states, self.word_options.word_dropout)
        if self.word_options.bilstm_size:
            states = self.bilstm(states, word_mask)  # (B, W, 2 * size)
        logits: Any  # (B, W, C)
        if self.training and labels is not None:
            logits = self.training_emissions(states, word_mask, labels)
        else:
            logits = self.emissions(states, word_mask)
        loss: Any = None
        if labels is not None:
            loss = self.losses(logits, labels, word_mask).sum()
            counted = (word_mask & known_words(labels)).sum().clamp(min=1)
            loss = loss / (num_items_in_batch if num_items_in_batch is not None else counted)
        return TokenClassifierOutput(loss=loss, logits=logits)

    def _states(self, inputs: dict[str, Tensor]) -> Tensor:
        """Compute the encoder's states ``(B, T, H)``, independent of the padding of each row."""
        if not self.takes_token_types:
            inputs.pop("token_type_ids", None)
        encoder, mask = getattr(self, self.base_model_prefix), inputs.get("attention_mask")
        layers = self.word_options.last_layers
        if mask is None or self.config.model_type not in _MIXES_PADDING_IN:
            return encode(encoder, inputs, layers)
        states = self.head_weight.new_zeros(*mask.shape, width_of(self.config))
        lengths = mask.sum(1)
        for length in lengths.unique().tolist():  # group rows by length, without padding
            chosen = (lengths == length)[:, None] & mask.bool()  # (B, T)
            extra = max(0, getattr(self.config, "downsampling_rate", 1) - length)  # CANINE's minimum
            rows = {name: F.pad(value[chosen].view(-1, length), (0, extra)) for name, value in inputs.items()}
            states[chosen] = encode(encoder, rows, layers)[:, :length].flatten(0, 1).to(states)
        return states

    def add_token_types(self, count: int) -> list[int]:
        """Add token types to the encoder, and return their ids.

        Their embeddings start as copies of type 0, so that the encoder's output is unchanged before training.

        Raises:
            ValueError: the encoder's family has no token type embeddings.
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
        raise ValueError(f"{self.config.model_type} encoders have no token type embeddings")

    def reset_head(self) -> None:
        """Initialise all weights outside the encoder randomly."""
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
            reset()  # transformers would leave layers that it does not know uninitialised
        else:
            super()._init_weights(module)

    def keep_labels_of(self, former: "Tagger") -> None:
        """Take over the head of a model that has some of this one's labels; a ValueError if the head cannot."""
        raise ValueError(f"--add_types: {type(self).__name__} cannot keep its types; train it again on all types")

    def select_labels(self, ids: Sequence[int], names: Sequence[str]) -> None:
        """Keep only the labels ``ids``, in this order and with these names.

        Raises:
            ValueError: ``classifier`` does not have one row per label.
        """
        head = self.classifier
        if head.out_features != len(self.label_names):
            raise ValueError(f"{type(self).__name__} cannot leave out or reorder its labels {self.label_names}")
        keep_rows(head, ids)
        set_label_names(self.config, names)


def set_label_names(config: PreTrainedConfig, names: Sequence[str]) -> None:
    """Set ``id2label`` and ``label2id``."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}


def casing_types(model: PreTrainedModel) -> tuple[int, ...]:
    """Token types that mark the casing of words; empty if the model has none."""
    return tuple(getattr(model.config, "casing_types", ()))


def known_words(labels: Tensor) -> Tensor:
    """Mask of words with any known target: ``(B, W, ...) -> (B, W)``."""
    return (labels != -100).reshape(*labels.shape[:2], -1).any(-1)
