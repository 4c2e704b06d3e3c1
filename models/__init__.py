"""Models: encoders with a head that finds entities."""

from common.options import imported
from models.heads.biaffine import BiaffineForNer
from models.heads.crf import BertCrfForNer
from models.heads.crf_per_type import BertCrfPerTypeForNer
from models.heads.global_pointer import GlobalPointerForNer
from models.heads.softmax import BertSoftmaxForNer
from models.heads.span import BertSpanForNer
from models.tagger import Tagger

__all__ = ["HEADS", "BertCrfForNer", "BertCrfPerTypeForNer", "BertSoftmaxForNer", "BertSpanForNer", "head_named"]

HEADS: dict[str, type[Tagger]] = {
    "softmax": BertSoftmaxForNer,
    "crf": BertCrfForNer,
    "crf_per_type": BertCrfPerTypeForNer,
    "span": BertSpanForNer,
    "global_pointer": GlobalPointerForNer,
    "biaffine": BiaffineForNer,
}


def head_named(name: str) -> type[Tagger]:
    """Find a head by its name in ``HEADS``, or import a custom one, ``module:Class``.

    Raises:
        ValueError: there is no such head.
    """
    if ":" not in name:
        if name not in HEADS:
            raise ValueError(f"--head {name} is none of {', '.join(HEADS)}; name your own as module:Class")
        return HEADS[name]
    head = imported(name, "--head")
    if not (isinstance(head, type) and issubclass(head, Tagger)):
        raise ValueError(f"--head {name}: not a subclass of models.tagger.Tagger")
    return head
