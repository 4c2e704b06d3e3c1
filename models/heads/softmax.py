"""Head with a softmax over the tags of each word, independent of other words."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig

from common.options import imported, option
from common.tag_schemes import OUTSIDE
from common.transition_biases import KINDS, read_biases
from models.crf import CRF
from models.heads.class_weights import FlatOptions
from models.heads.flat import Expectations, FlatTagger
from models.heads.transitions import fixed_crf
from models.tagger import LabelSpace, Tagger

logger = logging.getLogger(__name__)
# Unreduced losses per word: logits ``(N, C)``, labels ``(N,)`` -> ``(N,)``, 0 where the label is -100.
TokenLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss, which gives easy examples less weight (Lin et al. 2017, eq. 4, with gamma 2)."""
    losses = cross_entropy(logits, labels)
    return (1 - (-losses).exp()) ** 2 * losses


def label_smoothing(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with label smoothing of 0.1 (Szegedy et al. 2016, sec. 7)."""
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)


def cross_entropy_of_sets(log_probabilities: Tensor) -> Tensor:
    return -log_probabilities


def focal_of_sets(log_probabilities: Tensor) -> Tensor:
    return -((1 - log_probabilities.exp()) ** 2) * log_probabilities


LOSSES: dict[str, TokenLoss] = {"ce": cross_entropy, "focal": focal, "lsr": label_smoothing}
# Losses of words that may have one of several labels, from the log-probability that they have any of them.
_SET_LOSSES = {"ce": cross_entropy_of_sets, "focal": focal_of_sets}


def loss_named(name: str) -> str:
    """Check that a loss exists, importing a custom one, ``module:function``, and return its name.

    Raises:
        ValueError: there is no such loss.
    """
    if name not in LOSSES:
        if ":" not in name:
            raise ValueError(f"--loss {name} is none of {', '.join(LOSSES)}; name your own as module:function")
        LOSSES[name] = imported(name, "--loss")
    return name


@dataclass(frozen=True)
class TokenLossOptions(FlatOptions):
    """Flags of heads that decide about each word by itself."""

    loss: str = option(
        "ce",
        f"loss: {', '.join(LOSSES)} (cross-entropy, focal loss, label smoothing), or your own as module:function",
        common=True,
        aliases=["loss_type"],
    )


class TokenLossTagger(Tagger):
    """A tagger that decides about each word by itself, with one of ``LOSSES``.

    ``config.tag_loss`` names the loss; a custom loss must be imported before it is used, since loading a model does not
    import it.
    """

    Options: ClassVar[type] = TokenLossOptions

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        super().configure(config, labels, options)
        config.tag_loss = loss_named(options.loss)
        if labels.unknown_types:
            refuse_sets(config.tag_loss, bool(options.class_weights))

    @classmethod
    def override(cls, config: PreTrainedConfig, options: Any) -> None:
        """Makes a loss of the user's own known again; a model keeps the loss that it was trained with."""
        super().override(config, options)
        trained_with = getattr(config, "tag_loss", "ce")
        if loss_named(options.loss) not in ("ce", trained_with):
            logger.warning(
                "--loss %s: the model was trained with %s, which its loss is computed with", options.loss, trained_with
            )

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.tag_loss = str(getattr(config, "tag_loss", "ce"))
        if self.tag_loss not in LOSSES and ":" not in self.tag_loss:
            raise ValueError(f"tag_loss {self.tag_loss!r} is none of {', '.join(LOSSES)}")

    def token_losses(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None = None, of_annotation: Tensor | None = None
    ) -> Tensor:
        """Loss of each decision, 0 where the label is -100: ``(..., C), (...) -> (...)``.

        Args:
            labels: number of the label; or ``(..., C)``, 0 for each label that the decision cannot have.
            weights: ``(C,)`` weight of each label.
            of_annotation: ``(..., C)`` log-probability of the annotation for each label that the decision can have.
        """
        if self.tag_loss not in LOSSES:
            raise ValueError(f"the model was trained with --loss {self.tag_loss}; add this flag if you trust its code")
        if labels.dim() == logits.dim():  # sets of labels
            refuse_sets(self.tag_loss, weights is not None)
            return _SET_LOSSES[self.tag_loss](_log_probability(logits.float(), labels != 0, of_annotation))
        losses = LOSSES[self.tag_loss](logits.reshape(-1, logits.size(-1)).float(), labels.reshape(-1))
        losses = losses.view(labels.shape)
        return losses if weights is None else losses * weights[labels.clamp(min=0)]


def _log_probability(logits: Tensor, allowed: Tensor, of_annotation: Tensor | None) -> Tensor:
    """Log-probability of sets of labels: ``(..., C), (..., C) -> (...)``, exactly 0 for sets of all.

    Args:
        of_annotation: ``(..., C)`` added to the log-probability of each label; ``None``: 0.
    """
    inside = logits if of_annotation is None else logits + of_annotation
    return inside.masked_fill(~allowed, -torch.inf).logsumexp(-1) - logits.logsumexp(-1)


def refuse_sets(loss: str, weighted: bool) -> None:
    """Raise a ValueError if a loss is not defined for words that may have one of several labels."""
    reason = "some texts are annotated for some types only, so that their words may have one of several labels"
    if loss not in _SET_LOSSES:
        raise ValueError(f"--loss {loss}: {reason}, for which only {' and '.join(_SET_LOSSES)} are defined")
    if weighted:
        raise ValueError(f"--class_weights: {reason}, which have no weight; leave it out")


ARGMAX, VITERBI = DECODINGS = ("argmax", "viterbi")


@dataclass(frozen=True)
class SoftmaxOptions(TokenLossOptions):
    """Flags of the softmax head."""

    decode: str = option(
        "",
        "argmax: the best tag of each word; viterbi: the best tag sequence that is legal in the tag scheme; "
        "default: that of the trained model, or argmax",
        ["", *DECODINGS],
        common=True,
    )
    transition_biases: str = option(
        "",
        "JSON file of biases for kinds of transitions, which tools.fit_transitions writes",
        needs={"decode": [VITERBI]},
    )


class BertSoftmaxForNer(TokenLossTagger, FlatTagger):
    """Encoder, dropout and a linear layer.

    The checkpoint is compatible with ``AutoModelForTokenClassification``.

    ``config.tag_decoding`` is one of ``DECODINGS``; with viterbi, ``config.transition_biases`` may hold biases by kind
    of transition. They are not trained, and no part of the weights.
    """

    Options: ClassVar[type] = SoftmaxOptions
    title: ClassVar[str] = "softmax"

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        super().configure(config, labels, options)
        config.tag_decoding = options.decode or ARGMAX
        if options.transition_biases:
            config.transition_biases = read_biases(options.transition_biases)
        elif hasattr(config, "transition_biases"):
            del config.transition_biases

    @classmethod
    def override(cls, config: PreTrainedConfig, options: Any) -> None:
        super().override(config, options)
        message = "--%s %s applies to this run only: the model was evaluated with %s, which its folder keeps"
        if options.decode:
            saved = getattr(config, "tag_decoding", options.decode)
            if options.decode != saved:
                logger.warning(message, "decode", options.decode, saved)
            config.tag_decoding = options.decode
        if options.decode == VITERBI and not hasattr(config, "tag_markup"):
            logger.info('Labels B-X and I-X are read as BIO; if they are IOB1, add "tag_markup": "iob1" to config.json')
        if options.transition_biases:
            biases, saved_biases = read_biases(options.transition_biases), getattr(config, "transition_biases", None)
            if saved_biases and biases != saved_biases:
                logger.warning(message, "transition_biases", options.transition_biases, "other biases")
            config.transition_biases = biases

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.post_init()

    @property
    def searches(self) -> bool:
        """Whether the tags of a text are its best legal sequence, not the best tag of each word by itself."""
        return getattr(self.config, "tag_decoding", ARGMAX) == VITERBI

    def losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        mask = word_mask if targets.dim() == 2 else word_mask.unsqueeze(-1)
        labels, weights = targets.masked_fill(~mask, -100), self._tag_weights(emissions.device)
        return self.token_losses(emissions, labels, weights, self._of_annotation(labels)).sum(1)  # (B,)

    def decode(self, emissions: Tensor, word_mask: Tensor) -> Tensor:
        if self.searches:
            return self.legal_crf().best_paths(emissions, word_mask).tags  # (B, W)
        return emissions.argmax(-1)  # (B, W)

    def lattice(self) -> CRF:
        return self.legal_crf(self.confidence_temperatures[1]) if self.searches else super().lattice()

    def legal_crf(self, temperature: float = 1.0) -> CRF:
        """The CRF of viterbi: the legal tag sequences, whose transitions score their biases."""
        biases = getattr(self.config, "transition_biases", {})
        scores = tuple(biases.get(kind, 0.0) / temperature for kind in KINDS)
        return fixed_crf(tuple(self.tag_names), self.markup, scores, self.device)

    def expected_entity_words(self, emissions: Tensor, word_mask: Tensor) -> Tensor:
        outside = emissions.float().softmax(-1)[..., self.tag_names.index(OUTSIDE)]  # (B, W)
        return ((1 - outside) * word_mask).sum(1)

    def expectations(self, emissions: Tensor, word_mask: Tensor, temperature: float = 1.0) -> Expectations:
        tags = (emissions.float() / temperature).softmax(-1) * word_mask[..., None]  # (B, W, C)
        return Expectations(tags, torch.einsum("bwi,bwj->ij", tags[:, :-1], tags[:, 1:]))

    def distillation_loss(
        self, emissions: Tensor, word_mask: Tensor, taught: Expectations, temperature: float = 1.0
    ) -> Tensor:
        """The cross-entropy times the squared temperature, which keeps the size of gradients (Hinton et al. 2015)."""
        log_probabilities = (emissions.float() / temperature).log_softmax(-1)  # (B, W, C)
        return -(taught.tags * log_probabilities).sum() * temperature**2
