"""The labels of a trained model, whatever project it is from, as tags that its head can be asked for."""

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
    """The labels that a config names, in the order of their ids; none where they are only numbered."""
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    return [] if all(name.startswith(_NO_NAMES) for name in names) else names


def name_labels(config: PreTrainedConfig, source: str, task_name: str) -> None:
    """Names the labels of a model of BERT-NER-Pytorch, whose configs only number them.

    Raises:
        ValueError: the labels have no names and are not as many as that project has for the task.
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
        message = "%s/config.json does not name its %d labels: they are taken for BERT-NER-Pytorch's of %s: %s"
        logger.warning(message, source, count, fitting[0], ", ".join(label_names(config)))
    if tuple(label_names(config)) in NUMBERED_TAGS.values() and getattr(config, "word_unit", None) is None:
        config.word_unit = "char"  # that project reads both corpora so


def labels_of(head: type[Tagger], config: PreTrainedConfig, source: str) -> list[str]:
    """What each label means, by id, in the head's terms; empty for a label that means nothing, such as ``X``.

    Raises:
        ValueError: labels that cannot be understood, by name and file.
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
    """Keeps the wanted labels of a model, in their order.

    Args:
        labels: of the model, as `labels_of` has them.
        wanted: some or all of them.
    """
    if model.label_names != list(wanted):
        model.select_labels([list(labels).index(label) for label in wanted], wanted)


def difference(former: Iterable[str], now: Iterable[str]) -> str:
    """What two lists of labels do not have in common."""
    former, now = {tag for tag in former if tag}, set(now)
    parts = {"new": sorted(now - former), "gone": sorted(former - now)}
    return "; ".join(f"{what}: {shortened(tags)}" for what, tags in parts.items() if tags)


def shortened(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
