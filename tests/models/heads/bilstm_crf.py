"""A head of one's own: a BiLSTM between the encoder and the CRF. ``docs/heads.md`` explains it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from common.options import option
from models.heads.crf import BertCrfForNer, CrfOptions
from models.tagger import LabelSpace


@dataclass(frozen=True)
class BiLstmOptions(CrfOptions):
    """Flags of the CRF, and two more."""

    lstm_size: int = option(256, "units of the LSTM in each direction", at_least=1)
    lstm_learning_rate: float = option(1e-3, "peak learning rate of the LSTM", at_least=0)


class BiLstmCrf(BertCrfForNer):
    """Encoder, dropout, an LSTM in each direction, a linear layer for the emissions, and a CRF."""

    Options: ClassVar[type] = BiLstmOptions
    title: ClassVar[str] = "BiLSTM-CRF"

    @classmethod
    def configure(cls, config: PreTrainedConfig, labels: LabelSpace, options: Any) -> None:
        super().configure(config, labels, options)
        config.lstm_size = options.lstm_size

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        size = config.lstm_size
        self.lstm = nn.ModuleList([nn.LSTM(self.width, size, batch_first=True) for _ in range(2)])
        self.classifier = nn.Linear(2 * size, self.num_scores(config))
        self.post_init()

    def learning_rates(self, options: Any) -> dict[str, float]:
        return {**super().learning_rates(options), "lstm": options.lstm_learning_rate}

    def emissions(self, states: Tensor, word_mask: Tensor) -> Tensor:
        W, lengths = states.size(1), word_mask.sum(1, keepdim=True)  # (B, 1)
        # Words from the last to the first, then the padding: each place's new place, and the other way round.
        order = (lengths - 1 - torch.arange(W, device=states.device)) % W  # (B, W)
        states = self.dropout(states)  # (B, W, H)
        left, _ = self.lstm[0](states)  # (B, W, size)
        right, _ = self.lstm[1](states.gather(1, order[..., None].expand(-1, -1, states.size(-1))))
        right = right.gather(1, order[..., None].expand(-1, -1, right.size(-1)))
        return self.classifier(torch.cat([left, right], -1))  # (B, W, C)
