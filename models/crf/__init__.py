"""The linear-chain CRF layer."""

from models.crf.layer import CRF

__all__ = ["CRF"]
