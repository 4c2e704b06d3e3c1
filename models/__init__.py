"""Tensors to scores: encoders with softmax and CRF heads."""

from models.crf_tagger import BertCrfForNer
from models.softmax_tagger import BertSoftmaxForNer

__all__ = ["BertCrfForNer", "BertSoftmaxForNer"]
