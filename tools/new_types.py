"""Labels of a model to train: those of the corpus, and of a trained model that gets more types and keeps its own."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from transformers import PreTrainedConfig

from models.tagger import LabelSpace, Tagger
from processors.corpus import words_by_type
from processors.tasks import task_named
from tools import heads
from tools.run import Run

logger = logging.getLogger(__name__)
AnyTagger = TypeVar("AnyTagger", bound=Tagger)


def former_tagger(
    head: type[AnyTagger], config: PreTrainedConfig, source: str, former: Sequence[str] | None
) -> AnyTagger:
    """The trained model that is to have more types.

    Args:
        former: labels of the head in ``source``; ``None`` or empty if it has none of this kind.

    Raises:
        ValueError: there is no trained head of this kind.
    """
    if not former:
        raise ValueError(f"--add_types: {source} has no trained {head.__name__} whose types could be kept")
    model = heads.read_model(head, source, config)
    heads.use_labels(model, former, [label for label in former if label])
    return model


def labels_to_train(run: Run, kept: Tagger | None) -> LabelSpace:
    """The labels of the corpus, after those of a model whose types are kept."""
    corpus = run.corpus
    train = corpus.inventory("train") if corpus.has("train") else None
    types, markup = corpus.entity_types(), run.markup
    if kept is not None:
        types, markup = list(dict.fromkeys([*kept.types, *types])), kept.markup or markup
    return LabelSpace(
        types,
        markup,
        single_words=task_named(corpus.task_name).plain_tags,
        count_words=partial(words_by_type, corpus, "train"),
        unknown_words=train is not None and train.unannotated_words > 0,
        unknown_types=run.settings.optimisation.missing_entities or (train is not None and train.incomplete > 0),
    )


def keep_types(model: Tagger, former: Tagger) -> None:
    """Give a model with a new head the weights that a former one has learnt for its types, and log which.

    Raises:
        ValueError: the head cannot keep them.
    """
    model.keep_labels_of(former)
    added = [name for name in model.types if name not in former.types]
    message = "--add_types: kept the head of the types %s; new types, not learnt yet: %s"
    logger.info(message, ", ".join(former.types), ", ".join(added))
