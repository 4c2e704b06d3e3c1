"""From the corpus to data sets: features that rank 0 builds and all ranks open, and what was odd in the data."""

import logging
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from common.tag_encoder import TagEncoder
from common.tag_schemes import MARKUPS
from processors.corpus import Corpus, repeated_sentences, sentences_of_train
from processors.examples import DataError, Findings
from processors.features.build import FeatureSpec, default_overlap
from processors.features.cache import open_or_build_features
from processors.features.dataset import FeatureDataset
from processors.features.windows import layout_of_tokenizer
from tools.distributed import is_main, main_process_first
from tools.run import Run

logger = logging.getLogger(__name__)
_REMARKS_SHOWN = 10
_OVERLAP_WORTH_A_WARNING = 0.01


def load_and_cache_examples(
    run: Run, task: str, tokenizer: PreTrainedTokenizerBase, data_type: str = "train"
) -> FeatureDataset:
    """The features of a split, built by rank 0 while the others wait, and opened from the cache by all.

    What the split holds and what was odd in it is logged once in a run.

    Args:
        run: of the model that the data set is for; before one is loaded, labels are tags of the corpus's types.
        task: name of the task.
        tokenizer: of the encoder.
        data_type: ``train``, ``dev`` or ``test``.

    Raises:
        DataError: the split is missing or malformed, has labels that the model does not know, or is to be trained on
            and holds no entity.
    """
    with main_process_first():
        dataset = open_features(run, task, tokenizer, data_type)
    corpus, window = _corpus(run, task), run.window(data_type)
    key = ("reported", corpus.source_name(data_type), data_type, window)
    if is_main() and key not in run.opened:
        _report(corpus, data_type, dataset, window, run.nests)
    run.opened.add(key)
    return dataset


def open_features(run: Run, task: str, tokenizer: PreTrainedTokenizerBase, data_type: str) -> FeatureDataset:
    """The features of a split from the cache, built where they are not there; each process for itself."""
    corpus, data, window = _corpus(run, task), run.settings.data, run.window(data_type)
    if data_type == "train":
        check_entities(corpus)
    layout = layout_of_tokenizer(tokenizer, run.model_type, list(run.casing_types))
    overlap = default_overlap(layout.capacity(window)) if run.window_overlap < 0 else run.window_overlap
    corpus.check_types(data_type, list(run.types or corpus.entity_types()))
    key = ("rebuilt", corpus.source_name(data_type), data_type, window)
    dataset = open_or_build_features(
        corpus,
        data_type,
        FeatureSpec(window, overlap, layout),
        tokenizer,
        Path(data.feature_cache_dir),
        run.encode or TagEncoder(corpus.label_list(run.markup), MARKUPS[run.markup]),
        overwrite=data.overwrite_cache and is_main() and key not in run.opened,
        show_progress=is_main(),
    )
    run.opened.add(key)
    return dataset


def _corpus(run: Run, task: str) -> Corpus:
    return run.corpus if task == run.corpus.task_name else run.corpus.variant(task_name=task)


def check_splits(run: Run) -> None:
    """Raises a DataError, before anything is loaded, for all missing splits, or for a train split without entities."""
    actions, findings = run.settings.actions, Findings()
    wanted = {"train": actions.do_train, "dev": actions.do_eval, "test": actions.do_predict}
    with main_process_first():  # downloads
        for split in (split for split, needed in wanted.items() if needed):
            try:
                run.corpus.source_name(split)
            except DataError as error:
                findings.fault(error)
        findings.raise_faults()
        if actions.do_train:
            check_entities(run.corpus)


def check_entities(corpus: Corpus) -> None:
    """Raises a DataError where the train split has no entity, with what was left out of it."""
    inventory = corpus.inventory("train")
    if not inventory.entities:
        odd = "".join(f"; {count} {kind}" for kind, count in inventory.findings.counts.items())
        message = (
            f"no entity to learn among {inventory.words} words{odd}; check the format of the file and --tag_column"
        )
        raise DataError(message, inventory.source)


def _report(corpus: Corpus, split: str, dataset: FeatureDataset, max_seq_length: int, nests: bool) -> None:
    """Logs what a split holds and what is odd in it."""
    inventory = corpus.inventory(split)
    counts = f"{inventory.sentences} sentences, {inventory.words} words, {inventory.entities} entities"
    lost = inventory.words - int(dataset.word_counts.sum())
    windows = f"{len(dataset)} windows of at most {max_seq_length} tokens, {lost} words lost"
    logger.info("%s: %s (%s) in %s; %s", split, counts, inventory.scheme or "no tags", inventory.source, windows)
    if not inventory.entities and inventory.unlabelled < inventory.sentences:
        logger.warning("%s: no entity in this labelled split: its scores mean nothing; is it read as intended?", split)
    tokens, padded = int(dataset.lengths.sum()), int(np.max(dataset.lengths, initial=0)) * len(dataset)
    logger.info("%s: %d tokens; padding all to the longest would make them %d", split, tokens, padded)
    if inventory.illegal_transitions:
        place = inventory.place(inventory.first_illegal_line)
        message = "%s: %d tag transitions are illegal in %s, the first at %s; they are read as conlleval reads them"
        logger.warning(message, split, inventory.illegal_transitions, inventory.scheme, place)
    if inventory.nested_entities and not nests:
        message = "%s: %d of %d entities overlap longer ones: flat tags cannot express them, nor are they scored"
        logger.warning(message, split, inventory.nested_entities, inventory.entities)
    report_findings(split, inventory.findings, inventory.source)
    for entity_type in corpus.types_unseen_in_training(split) if split != "train" else []:
        place = inventory.place(inventory.type_lines[entity_type])
        message = "%s: %d entities of type %s, the first at %s, have no example in train: no model can find them"
        logger.warning(message, split, inventory.types[entity_type], entity_type, place)
    _report_duplicates(corpus, split, inventory.sentences)


def report_findings(split: str, findings: Findings, source: str = "") -> None:
    """Counts what was odd in annotations, and lists the first of it; the run's log file has all."""
    for kind, count in findings.counts.items():
        logger.warning("%s: %d %s", split, count, kind)
    for number, remark in enumerate(findings.remarks):
        logger.log(logging.WARNING if number < _REMARKS_SHOWN else logging.DEBUG, "%s: %s%s", split, source, remark)
    if len(findings.remarks) > _REMARKS_SHOWN:
        logger.warning("%s: the log file lists %d more", split, len(findings.remarks) - _REMARKS_SHOWN)


def _report_duplicates(corpus: Corpus, split: str, sentences: int) -> None:
    """Sentences that are learnt twice, or scored after they were learnt."""
    if split == "train":
        repeated = repeated_sentences(corpus, split)
        if repeated:
            logger.info("train: %d sentences (%.1f %%) are duplicates", repeated, 100 * repeated / sentences)
    elif corpus.has("train") and (known := sentences_of_train(corpus, split)):
        level = logging.WARNING if known >= _OVERLAP_WORTH_A_WARNING * sentences else logging.INFO
        message = "%s: %d of %d sentences (%.1f %%) stand in train too; their scores say little about new text"
        logger.log(level, message, split, known, sentences, 100 * known / sentences)
