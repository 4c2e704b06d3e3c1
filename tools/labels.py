"""The labels of a trained model, whatever project it is from, as tags that its head can be asked for."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import PreTrainedConfig

from common.tag_dialects import UnknownTagsError, canonical_tags
from common.tag_schemes import MARKUPS, OUTSIDE, split_tag, tag_set
from models import HEADS, BertCrfForNer
from models.tagger import Tagger
from processors.tasks import NUMBERED_TAGS
from tools.heads import weight_shapes

logger = logging.getLogger(__name__)
_NO_NAMES = "LABEL_"
_FRAMES = {("[CLS]", "[SEP]"): ("[CLS]", "[SEP]"), ("[START]", "[END]"): (OUTSIDE, OUTSIDE)}
_SHOWN = 10


def label_names(config: PreTrainedConfig) -> list[str]:
    """The labels that a config names, in the order of their ids; none where they are only numbered."""
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    return [] if all(name.startswith(_NO_NAMES) for name in names) else names


def set_label_names(config: PreTrainedConfig, names: Sequence[str]) -> None:
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}


def name_labels(config: PreTrainedConfig, source: str, task_name: str) -> None:
    """Names the labels of a model of BERT-NER-Pytorch, whose configs only number them.

    Raises:
        ValueError: the labels have no names and are not as many as that project has for the task.
    """
    if not label_names(config):
        shape = weight_shapes(Path(source)).get("classifier.weight", (len(config.id2label or {}),))
        count, task = shape[0], (task_name or getattr(config, "finetuning_task", None) or "").lower()
        is_of_that_project = not config.architectures or config.architectures[0] in HEADS
        fitting = [known for known, tags in NUMBERED_TAGS.items() if len(tags) == count and is_of_that_project]
        if not fitting or (task in NUMBERED_TAGS and task not in fitting):
            wanted = f", which are not the {len(NUMBERED_TAGS[task])} of {task}" if task in NUMBERED_TAGS else ""
            raise ValueError(f"{source}/config.json does not name its {count} labels in id2label{wanted}; add them")
        set_label_names(config, NUMBERED_TAGS[fitting[0]])
        message = "%s/config.json does not name its %d labels: they are taken for BERT-NER-Pytorch's of %s: %s"
        logger.warning(message, source, count, fitting[0], ", ".join(label_names(config)))
    if tuple(label_names(config)) in NUMBERED_TAGS.values() and getattr(config, "word_unit", None) is None:
        config.word_unit = "char"  # that project reads both corpora so


def tags_of(config: PreTrainedConfig, source: str) -> list[str]:
    """The tag of each label, by id; empty for a label that stands for no tag, such as ``X`` or ``[CLS]``.

    Raises:
        ValueError: labels that cannot be understood, by name and file.
    """
    names = label_names(config)
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{source}/config.json, id2label: several labels are named {', '.join(repeated)}")
    try:
        dialect = canonical_tags(names, special=True)
    except UnknownTagsError as error:
        raise ValueError(f"{source}/config.json, id2label: {error}") from error
    if dialect.description:
        logger.info("Labels of %s: %s", source, dialect.description)
    return [dialect.tags[name] for name in names]


def use_tags(model: Tagger, tags: Sequence[str], wanted: Sequence[str]) -> None:
    """Keeps the rows of the head that belong to the wanted tags, in their order.

    A CRF whose labels show that [CLS] and [SEP] were part of its sequences is changed to sequences of words alone.

    Args:
        tags: of the head's rows, as `tags_of` has them.
        wanted: some or all of them.
    """
    names = model.tag_names
    if isinstance(model, BertCrfForNer):
        for ends, tags_at_ends in _FRAMES.items():
            if {*ends, *tags_at_ends} <= set(names):
                model.begin_and_end_with(*(names.index(name) for name in tags_at_ends))
                message = "The CRF was trained on sequences with [CLS] and [SEP]: they count as %s and %s"
                logger.info(message, *tags_at_ends)
    if names != list(wanted):
        model.select_tags([list(tags).index(tag) for tag in wanted], wanted)


def markup_of(config: PreTrainedConfig, tags: Iterable[str], default: str) -> str:
    """The tag scheme of a model: as it was saved, or as its tags have it."""
    saved = getattr(config, "tag_markup", None)
    if saved:
        return str(saved)
    tags = [tag for tag in tags if tag not in ("", OUTSIDE)]
    prefixes = {split_tag(tag)[0] for tag in tags}
    if prefixes <= {"B", "I"} and any(tag[0] == "I" and f"B{tag[1:]}" not in tags for tag in tags):
        return "iob1"
    return next((name for name, scheme in MARKUPS.items() if tags and prefixes <= set(scheme.prefixes)), default)


def with_missing_tags(tags: Sequence[str], markup: str) -> list[str]:
    """The tags of a model, then those of the scheme that it lacks, which gold entities may still need."""
    types = dict.fromkeys(split_tag(tag)[1] for tag in tags if tag != OUTSIDE)
    return [*tags, *(tag for tag in tag_set(types, MARKUPS[markup]) if tag not in tags)]


def difference(former: Iterable[str], now: Iterable[str]) -> str:
    """What two lists of labels do not have in common."""
    former, now = {tag for tag in former if tag}, set(now)
    parts = {"new": sorted(now - former), "gone": sorted(former - now)}
    return "; ".join(f"{what}: {shortened(tags)}" for what, tags in parts.items() if tags)


def shortened(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
