"""Tensors to scores: encoders with softmax and CRF heads."""

from models.heads.crf import BertCrfForNer
from models.heads.softmax import BertSoftmaxForNer
from models.tagger import Tagger

__all__ = ["HEADS", "BertCrfForNer", "BertSoftmaxForNer"]

HEADS: dict[str, type[Tagger]] = {head.__name__: head for head in (BertSoftmaxForNer, BertCrfForNer)}
