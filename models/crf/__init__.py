"""A linear-chain CRF layer: exact, complete, and fast enough not to show beside an encoder. See docs/crf.md."""

from .layer import CRF
from .legal import legal_transitions
from .paths import Paths
from .spans import ProbableSpans, SpanTags

__all__ = ["CRF", "Paths", "ProbableSpans", "SpanTags", "legal_transitions"]
