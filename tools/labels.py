"""Labels of trained models, also of other projects, converted to the tags of this project."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import PreTrainedConfig

from models.tagger import Tagger, set_label_names
from processors.tasks import NUMBERED_TAGS
from tools.heads import is_built_in, weight_shapes

logger = logging.getLogger(__name__)
_NO_NAMES = "LABEL_"
_SHOWN = 10


def label_names(config: PreTrainedConfig) -> list[str]:
    """Label names of a config by id; empty if the labels are only numbered (``LABEL_0``)."""
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    return [] if all(name.startswith(_NO_NAMES) for name in names) else names


def name_labels(config: PreTrainedConfig, source: str, task_name: str) -> None:
    """Set the label names of a BERT-NER-Pytorch model, whose config only numbers them.

    Raises:
        ValueError: the labels have no names, and their number is not that of the task in BERT-NER-Pytorch.
    """
    if not label_names(config):
        shape = weight_shapes(Path(source)).get("classifier.weight", (len(config.id2label or {}),))
        count, task = shape[0], (task_name or getattr(config, "finetuning_task", None) or "").lower()
        is_of_that_project = not config.architectures or is_built_in(config.architectures[0])
        fitting = [known for known, tags in NUMBERED_TAGS.items() if len(tags) == count and is_of_that_project]
        if not fitting or (task in NUMBERED_TAGS and task not in fitting):
            wanted = f", which are not the {len(NUMBERED_TAGS[task])} of {task}" if task in NUMBERED_TAGS else ""
            raise ValueError(f"{source}/config.json does not name its {count} labels in id2label{wanted}; add them")
        set_label_names(config, NUMBERED_TAGS[fitting[0]])
        message = "%s/config.json does not name its %d labels: using those of BERT-NER-Pytorch for %s: %s"
        logger.warning(message, source, count, fitting[0], ", ".join(label_names(config)))
    if tuple(label_names(config)) in NUMBERED_TAGS.values() and getattr(config, "word_unit", None) is None:
        config.word_unit = "char"  # as BERT-NER-Pytorch reads both corpora


def labels_of(head: type[Tagger], config: PreTrainedConfig, source: str) -> list[str]:
    """Labels by id, in the head's canonical form; empty for labels without a meaning, such as ``X``.

    Raises:
        ValueError: names the labels that cannot be parsed, and the file.
    """
    names = label_names(config)
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{source}/config.json, id2label: several labels are named {', '.join(repeated)}")
    try:
        return head.read_labels(names)
    except ValueError as error:
        raise ValueError(f"{source}/config.json, id2label: {error}") from error


def use_labels(model: Tagger, labels: Sequence[str], wanted: Sequence[str]) -> None:
    """Reduce a model to the wanted labels, in the given order.

    Args:
        labels: labels of the model, from `labels_of`.
        wanted: some or all of them.
    """
    if model.label_names != list(wanted):
        model.select_labels([list(labels).index(label) for label in wanted], wanted)


def difference(former: Iterable[str], now: Iterable[str]) -> str:
    """Describe the difference between two lists of labels, for a message."""
    former, now = {tag for tag in former if tag}, set(now)
    parts = {"new": sorted(now - former), "gone": sorted(former - now)}
    return "; ".join(f"{what}: {shortened(tags)}" for what, tags in parts.items() if tags)


def shortened(names: Sequence[str]) -> str:
    """Join the first names of a list, and say how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
