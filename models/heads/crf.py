"""Head with a linear-chain conditional random field (CRF) over the tags of a text."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from common.entities import Annotation
from common.options import option
from common.tag_schemes import OUTSIDE
from models.crf import CRF
from models.crf.lattice import exact_type
from models.heads.class_weights import FlatOptions
from models.heads.flat import Expectations, FlatTagger
from models.heads.transitions import legal_followers, legal_matrix
from models.tagger import LabelSpace, Tagger

logger = logging.getLogger(__name__)
CRF_WEIGHTS = "--class_weights: the CRF weights the words of known tags, but some words are not annotated; leave it out"
_STEP = 1e-2  # of the difference quotient of the log-partition
# Special tokens that other projects include in the chain -> the tags that they have there.
_FRAMES = {("[CLS]", "[SEP]"): ("[CLS]", "[SEP]"), ("[START]", "[END]"): (OUTSIDE, OUTSIDE)}


@dataclass(frozen=True)
class CrfOptions(FlatOptions):
    """Flags of the CRF."""

    crf_learning_rate: float = option(1e-3, "peak learning rate of the CRF's transitions", common=True, at_least=0)
    crf_constraints: bool = option(True, "allow only transitions that are legal in the tag scheme")


class BertCrfForNer(FlatTagger):
    """Encoder, dropout, a linear layer for the emissions, and a CRF (Lafferty et al. 2001) over the words.

    ``config.crf_legal`` lists the ids of the legal next tags for each of the C tags and for the start; ``C + 1`` is the
    end. Illegal sequences have probability zero in training and decoding. ``None`` makes all sequences legal.
    """

    Options: ClassVar[type] = CrfOptions
    title: ClassVar[str] = "CRF"
    script: ClassVar[str] = "run_ner_crf.py"

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        if options.class_weights and (labels.unknown_words or labels.unknown_types):
            raise ValueError(CRF_WEIGHTS)
        super().configure(config, labels, options)
        tags = list((config.id2label or {}).values())
        config.crf_legal = legal_followers(tags, labels.markup) if options.crf_constraints else None

    @classmethod
    def override(cls, config: PreTrainedConfig, options: Any) -> None:
        super().override(config, options)
        if not options.crf_constraints:
            if getattr(config, "crf_legal", None):
                logger.warning(
                    "--no_crf_constraints applies to this run only: the model was evaluated with constraints"
                )
            config.crf_legal = None

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        num_tags = len(self.tag_names)
        self.crf = CRF(num_tags, batch_first=True, legal=legal_matrix(getattr(config, "crf_legal", None), num_tags))
        self.post_init()

    def learning_rates(self, options: Any) -> dict[str, float]:
        return {"classifier": options.crf_learning_rate, "crf": options.crf_learning_rate}

    def _needs_sets(self, annotations: Sequence[Annotation]) -> bool:
        return any(one.is_partial for one in annotations)

    def losses(self, emissions: Tensor, targets: Tensor, word_mask: Tensor) -> Tensor:
        weights = self._tag_weights(emissions.device)
        if targets.dim() == 3:  # sets of tags
            if weights is not None:
                raise ValueError(CRF_WEIGHTS)
            of_annotation = self._of_annotation(targets)
            if of_annotation is None:
                return -self.crf(emissions, mask=word_mask, allowed=targets != 0, reduction="none")  # (B,)
            exact = emissions.to(exact_type(emissions.device))  # as `CRF.forward`
            seen = self.crf.log_partition(exact + of_annotation, word_mask, targets != 0)
            return (self.crf.log_partition(exact, word_mask) - seen).to(emissions.dtype)  # (B,)
        known = word_mask & (targets != -100)
        return -self.crf(emissions, targets, known, reduction="none", weight=weights)  # (B,)

    def decode(self, emissions: Tensor, word_mask: Tensor) -> Tensor:
        return self.crf.best_paths(emissions, word_mask).tags  # (B, W)

    def expected_entity_words(self, emissions: Tensor, word_mask: Tensor) -> Tensor:
        """As in the base class. It is the derivative of the log-partition by a score that all tags but ``O`` get.

        The central difference in double precision has an error of about 1e-5, and gradients through the kernels of the
        log-partition; those of `CRF.marginals` need plain torch, a hundred times slower.
        """
        exact = emissions.to(exact_type(emissions.device))
        inside = torch.full_like(exact[0, 0], _STEP)  # (C,)
        inside[self.tag_names.index(OUTSIDE)] = 0
        above, below = (
            self.crf.log_partition(exact + tilt, word_mask)  # (B,)
            for tilt in (inside, -inside)
        )
        return ((above - below) / (2 * _STEP)).to(emissions.dtype)

    def expectations(self, emissions: Tensor, word_mask: Tensor, temperature: float = 1.0) -> Expectations:
        _refuse_temperature(temperature)
        with torch.enable_grad():  # the gradients of the log-partition are the expectations
            emissions = emissions.detach().requires_grad_()
            value = self.crf.log_partition(emissions, word_mask).sum()
            return Expectations(*torch.autograd.grad(value, (emissions, self.crf.transitions)))

    def distillation_loss(
        self, emissions: Tensor, word_mask: Tensor, taught: Expectations, temperature: float = 1.0
    ) -> Tensor:
        """The cross-entropy of whole tag sequences, exact since their score is a sum over tags and transitions.

        Wang et al. 2021, Structural Knowledge Distillation, sec. 3.2, case 1a.
        """
        _refuse_temperature(temperature)
        crf, last = self.crf, (word_mask.sum(1) - 1).clamp(min=0)  # (B,)
        of_last = taught.tags[torch.arange(len(last), device=last.device), last]  # (B, C)
        expected = (taught.tags * emissions).sum() + (taught.transitions * crf.transitions).sum()
        expected = expected + (taught.tags[:, 0] @ crf.start_transitions + of_last @ crf.end_transitions).sum()
        return crf.log_partition(emissions, word_mask).sum() - expected

    def lattice(self) -> CRF:
        temperature = self.confidence_temperatures[1]
        if temperature == 1:
            return self.crf
        scaled = super().lattice()
        scaled.set_legal(self.crf.legal)
        with torch.no_grad():
            for name, scores in self.crf.named_parameters():
                scaled.get_parameter(name).copy_(scores / temperature)
        return scaled

    @torch.no_grad()
    def keep_labels_of(self, former: Tagger) -> None:
        super().keep_labels_of(former)
        own = torch.tensor([self.label_names.index(name) for name in former.label_names])
        crf, learnt = self.crf, former.state_dict()
        crf.start_transitions[own] = learnt["crf.start_transitions"]
        crf.end_transitions[own] = learnt["crf.end_transitions"]
        crf.transitions[own[:, None], own] = learnt["crf.transitions"]

    def select_labels(self, ids: Sequence[int], names: Sequence[str]) -> None:
        """Keep these tags only. Transitions from and to special tokens become start and end transitions."""
        crf, rows, former = self.crf, list(ids), self.label_names
        for ends, tags_at_ends in _FRAMES.items():
            if {*ends, *tags_at_ends} <= set(former):
                first, last = (former.index(tag) for tag in tags_at_ends)
                with torch.no_grad():
                    crf.start_transitions.copy_(crf.transitions[first])
                    crf.end_transitions.copy_(crf.transitions[:, last])
                message = "The CRF was trained on sequences with [CLS] and [SEP]: using %s and %s as start and end"
                logger.info(message, *tags_at_ends)
        super().select_labels(ids, names)
        crf.num_tags = len(rows)
        crf.start_transitions, crf.end_transitions, crf.transitions = (
            nn.Parameter(scores.detach())
            for scores in (crf.start_transitions[rows], crf.end_transitions[rows], crf.transitions[rows][:, rows])
        )
        crf.set_legal(legal_matrix(getattr(self.config, "crf_legal", None), len(rows)))


def _refuse_temperature(temperature: float) -> None:
    if temperature != 1:
        raise ValueError(
            "--distill_temperature: a CRF has no temperature, it teaches and learns its marginals as they are; use 1"
        )
