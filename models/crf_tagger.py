"""Tags of a whole text, chosen together by a linear-chain conditional random field."""

from torch import Tensor, nn
from transformers import PreTrainedConfig

from models.crf import CRF
from models.tagger import Tagger


class BertCrfForNer(Tagger):
    """Encoder, dropout, a linear layer for the emissions, and a CRF (Lafferty et al. 2001) over the words."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.crf = CRF(config.num_labels, batch_first=True)
        self.post_init()

    def sequence_losses(self, logits: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        return -self.crf(logits, labels, word_mask, reduction="none")  # (B,)

    def decode(self, logits: Tensor, word_mask: Tensor) -> Tensor:
        return self.crf.best_tags(logits, word_mask)  # (B, W)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CRF):
            module.reset_parameters()
