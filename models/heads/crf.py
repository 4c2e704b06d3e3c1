"""Tags of a whole text, chosen together by a linear-chain conditional random field."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from common.options import option
from models.crf import CRF
from models.tagger import Tagger


@dataclass(frozen=True)
class CrfOptions:
    """Options of the CRF head."""

    crf_learning_rate: float = option(1e-3, "peak learning rate of the CRF's transitions", common=True, at_least=0)
    crf_constraints: bool = option(True, "allow only transitions that are legal in the tag scheme")


class BertCrfForNer(Tagger):
    """Encoder, dropout, a linear layer for the emissions, and a CRF (Lafferty et al. 2001) over the words.

    ``config.crf_legal`` lists, for each of the C tags and then for the start, what may follow: tags by their ids, the
    end as ``C + 1``. Illegal sequences then have probability zero in training and decoding. Without it all are legal.
    """

    Options = CrfOptions

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        num_tags = self.classifier.out_features
        self.crf = CRF(num_tags, batch_first=True, legal=legal_matrix(getattr(config, "crf_legal", None), num_tags))
        self.post_init()

    def sequence_losses(self, logits: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        return -self.crf(logits, labels, word_mask, reduction="none")  # (B,)

    def decode(self, logits: Tensor, word_mask: Tensor) -> Tensor:
        return self.crf.best_paths(logits, word_mask).tags  # (B, W)

    def span_confidences(
        self, logits: Tensor, word_mask: Tensor, spans: Tensor, inside: Tensor, after: Tensor
    ) -> Tensor:
        return self.crf.span_confidence(logits, word_mask, spans, inside, after=after)  # (N,)

    def reset_head(self) -> None:
        super().reset_head()
        self.crf.reset_parameters()

    def select_tags(self, ids: Sequence[int], names: Sequence[str]) -> None:
        super().select_tags(ids, names)
        crf, rows = self.crf, list(ids)
        crf.num_tags = len(rows)
        crf.start_transitions, crf.end_transitions, crf.transitions = (
            nn.Parameter(scores.detach())
            for scores in (crf.start_transitions[rows], crf.end_transitions[rows], crf.transitions[rows][:, rows])
        )
        crf.set_legal(legal_matrix(getattr(self.config, "crf_legal", None), len(rows)))

    def begin_and_end_with(self, first: int, last: int) -> None:
        """Makes sequences of words of those that a special token of one of these tags precedes and follows.

        A model that was trained with [CLS] and [SEP] in the chain knows nothing of a sequence that starts with a word.
        """
        with torch.no_grad():
            self.crf.start_transitions.copy_(self.crf.transitions[first])
            self.crf.end_transitions.copy_(self.crf.transitions[:, last])

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CRF):
            module.reset_parameters()


def legal_matrix(followers: list[list[int]] | None, num_tags: int) -> Tensor | None:
    """The matrix ``(C + 2, C + 2)`` that the CRF takes, from the lists of the config."""
    if followers is None:
        return None
    legal = torch.zeros(num_tags + 2, num_tags + 2, dtype=torch.bool, device="cpu")  # real also while the model is meta
    for tag, following in enumerate(followers):
        legal[tag, following] = True
    return legal
