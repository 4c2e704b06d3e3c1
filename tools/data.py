"""Load datasets: rank 0 builds the features, all ranks open them, and problems in the data are logged."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.entities import Annotation
from common.tag_schemes import MARKUPS, TagEncoder
from processors.corpora import Corpora
from processors.corpus import Corpus, repeated_sentences, sentences_of_train
from processors.examples import DataError, Example, Findings
from processors.features.build import FeatureSpec, build_feature_arrays, default_overlap
from processors.features.cache import open_or_build_features
from processors.features.dataset import Encode, FeatureDataset
from processors.features.windows import layout_of_tokenizer
from processors.text.text_files import RawText, check_sources, read_texts
from processors.text.word_cutting import WordCutter
from tools.distributed import is_main, main_process_first
from tools.run import Run

logger = logging.getLogger(__name__)
_REMARKS_SHOWN = 10
_TEXTS_AT_ONCE = 20_000  # bounds the memory of features
_OVERLAP_WORTH_A_WARNING = 0.01


def load_and_cache_examples(
    run: Run, task: str, tokenizer: PreTrainedTokenizerBase, data_type: str = "train"
) -> FeatureDataset:
    """Load the features of a split. Rank 0 builds them while the others wait; then all open them from the cache.

    Counts and problems of a split are logged once per run.

    Args:
        run: the run whose model uses the dataset. If no model is loaded yet, labels are tags of the corpus's types.
        task: name of the task.
        tokenizer: tokenizer of the encoder.
        data_type: ``train``, ``dev`` or ``test``.

    Raises:
        DataError: the split is missing or malformed, has labels that the model does not know, or is the train split and
            has no entity.
    """
    corpus = run.corpus if task == run.corpus.task_name else run.corpus.variant(task_name=task)
    data, window = run.settings.data, run.window(data_type)
    with main_process_first():
        if data_type == "train":
            check_entities(corpus)
            check_documents(corpus, run.context_size)
        corpus.check_types(data_type, list(run.types or corpus.entity_types()))
        key = (corpus.source_name(data_type), data_type, window)
        is_new = is_main() and key not in run.opened
        dataset = open_or_build_features(
            corpus,
            data_type,
            _feature_spec(run, tokenizer, window),
            tokenizer,
            Path(data.feature_cache_dir),
            run.encode or TagEncoder(corpus.label_list(run.markup), MARKUPS[run.markup]),
            overwrite=data.overwrite_cache and is_new,
            show_progress=is_main(),
        )
    if is_new:
        _report(corpus, data_type, dataset, window, run.nests)
        _report_inexpressible(run, data_type, dataset)
    run.opened.add(key)
    return dataset


def encoder_of_training(run: Run) -> Encode:
    """Encodes what is known of training texts: with ``--missing_entities``, texts that do not tell lack any entities.

    With ``--corpora`` each corpus tells.
    """
    assert run.encode is not None
    if not run.settings.optimisation.missing_entities or isinstance(run.corpus, Corpora):
        return run.encode
    return partial(_encode_incomplete, run.encode)


def _encode_incomplete(encode: Encode, annotations: Sequence[Annotation]) -> Tensor:
    return encode([one if one.complete is not None else replace(one, complete=frozenset()) for one in annotations])


def load_training_data(run: Run, tokenizer: PreTrainedTokenizerBase) -> FeatureDataset:
    """Load the features of the train split, followed by those of ``--unlabelled_file``, which are not cached.

    Raises:
        DataError: as for `load_and_cache_examples`, or the unlabelled file is missing or broken.
    """
    dataset = load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "train")
    corpus, file = run.corpus, run.settings.optimisation.unlabelled_file
    if run.encode is not None:
        dataset.encode = encoder_of_training(run)
    if isinstance(corpus, Corpora):
        dataset.weights = _weights_of_windows(corpus, dataset)
    if not file:
        return dataset
    examples = cut_texts(run, read_texts([file]))
    arrays = build_feature_arrays(examples, _feature_spec(run, tokenizer, run.window("train")), tokenizer)
    if is_main():
        logger.info("%s: %d texts without labels, %d words", file, len(examples), int(arrays["document_words"].sum()))
    joined = dataset.joined(arrays)
    if dataset.weights is not None:
        joined.weights = np.pad(dataset.weights, (0, len(joined) - len(dataset)), constant_values=1.0)
    return joined


def _weights_of_windows(corpora: Corpora, dataset: FeatureDataset) -> NDArray[np.float64] | None:
    """The weight of the corpus of each window; ``None`` if all are 1."""
    weights = {member.name: member.weight for member in corpora.members}
    if set(weights.values()) == {1.0}:
        return None
    of_documents = [weights[corpora.member_of(dataset.document(n).guid)] for n in range(dataset.num_documents)]
    return np.repeat(of_documents, dataset.arrays["document_windows"])


def examples_in_parts(run: Run, files: Sequence[str]) -> Iterator[list[Example]]:
    """The raw texts of files as `cut_texts` makes them, some thousands at once."""
    texts = read_texts(files)
    while part := list(islice(texts, _TEXTS_AT_ONCE)):
        yield cut_texts(run, part)


def cut_texts(run: Run, texts: Iterable[RawText]) -> list[Example]:
    """Raw texts as examples without annotation, cut into words as the model expects; those without words are left out.

    ``run`` must be that of a loaded model.
    """
    cutter = WordCutter(run.corpus.word_unit or "auto", run.corpus.kept_words)
    examples = []
    for raw in texts:
        words, offsets = cutter.split(raw.text)
        if words:
            examples.append(Example(str(raw.id), words, text=raw.text, offsets=offsets, words_given=False))
    return examples


def dataset_of_texts(run: Run, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> FeatureDataset:
    """Features of examples without annotation, in memory, with the windows of prediction."""
    spec = _feature_spec(run, tokenizer, run.window("test"))
    return FeatureDataset(build_feature_arrays(examples, spec, tokenizer), spec.layout)


def _feature_spec(run: Run, tokenizer: PreTrainedTokenizerBase, window: int) -> FeatureSpec:
    layout = layout_of_tokenizer(tokenizer, run.model_type, list(run.casing_types))
    overlap = default_overlap(layout.capacity(window)) if run.window_overlap < 0 else run.window_overlap
    return FeatureSpec(window, overlap, layout, run.context_size)


def check_splits(run: Run) -> None:
    """Raise a DataError, before anything is loaded, for missing splits and files, or a train split without entities."""
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
            check_sources(list(filter(None, [run.settings.optimisation.unlabelled_file])))


def check_entities(corpus: Corpus) -> None:
    """Raise a DataError if the train split has no entity, with the counts of what was left out of it."""
    inventory = corpus.inventory("train")
    if not inventory.entities:
        odd = "".join(f"; {count} {kind}" for kind, count in inventory.findings.counts.items())
        message = f"no entities in {inventory.words} words{odd}; check the format of the file and --tag_column"
        raise DataError(message, inventory.source)


def check_documents(corpus: Corpus, context_size: int | None) -> None:
    """Raise a DataError if sentences need context, but no two neighbours of the train split are of one document."""
    inventory = corpus.inventory("train")
    if context_size is not None and not inventory.continuations:
        marks = "-DOCSTART- lines, # newdoc comments, or a doc_id in JSON tell which sentences are of one document"
        raise DataError(
            f"--document_context: no sentence has a neighbour of the same document; {marks}; a text of several "
            "sentences (brat, Label Studio) is its own context already",
            inventory.source,
        )


def _report(corpus: Corpus, split: str, dataset: FeatureDataset, max_seq_length: int, nests: bool) -> None:
    """Log counts and problems of a split."""
    inventory = corpus.inventory(split)
    counts = f"{inventory.sentences} sentences, {inventory.words} words, {inventory.entities} entities"
    lost = inventory.words - int(dataset.word_counts.sum())
    windows = f"{len(dataset)} windows of at most {max_seq_length} tokens, {lost} words lost"
    logger.info("%s: %s (%s) in %s; %s", split, counts, inventory.scheme or "no tags", inventory.source, windows)
    if not inventory.entities and inventory.unlabelled < inventory.sentences:
        logger.warning(
            "%s: this labelled split has no entities, so scores are meaningless; check its format and --tag_column",
            split,
        )
    tokens, padded = int(dataset.lengths.sum()), int(np.max(dataset.lengths, initial=0)) * len(dataset)
    logger.info("%s: %d tokens; padding all to the longest would make them %d", split, tokens, padded)
    if inventory.illegal_transitions:
        place = inventory.place(inventory.first_illegal_line)
        message = "%s: %d tag transitions are illegal in %s, the first at %s; interpreting them as conlleval does"
        logger.warning(message, split, inventory.illegal_transitions, inventory.scheme, place)
    if inventory.nested_entities and not nests:
        message = "%s: %d of %d entities overlap longer ones: flat tags cannot express them, and they are not scored"
        logger.warning(message, split, inventory.nested_entities, inventory.entities)
    if inventory.unannotated_words:
        logger.info("%s: %d of %d words are not annotated", split, inventory.unannotated_words, inventory.words)
    if inventory.incomplete:
        counted = ", ".join(f"{name} in {count}" for name, count in sorted(inventory.complete_types.items()))
        message = "%s: %d of %d sentences are annotated for some types only (%s)"
        logger.info(message, split, inventory.incomplete, inventory.sentences, counted or "completely for none")
    if unknown := sorted(inventory.complete_types.keys() - corpus.entity_types()):
        message = "%s: %s is said to be annotated completely, but is none of the types %s"
        logger.warning(message, split, ", ".join(unknown), ", ".join(corpus.entity_types()))
    report_findings(split, inventory.findings, inventory.source)
    for entity_type in corpus.types_unseen_in_training(split) if split != "train" else []:
        place = inventory.place(inventory.type_lines[entity_type])
        message = "%s: %d entities of type %s, the first at %s, do not occur in train: the model cannot find them"
        logger.warning(message, split, inventory.types[entity_type], entity_type, place)
    if context := int(dataset.arrays["window_contexts"].sum()):
        message = "%s: %.1f %% of the tokens are context of the same document"
        logger.info(message, split, 100 * context / max(1, tokens))
    _report_duplicates(corpus, split, inventory.sentences)


def _report_inexpressible(run: Run, split: str, dataset: FeatureDataset) -> None:
    """Log how many entities a head that finds overlapping ones cannot express all the same."""
    if not run.nests or run.expressible is None:
        return
    found = [dataset.annotation(document).entities or () for document in range(dataset.num_documents)]
    entities = sum(map(len, found))
    if lost := entities - sum(len(run.expressible(one)) for one in found):
        message = "%s: %d of %d entities cannot be expressed by the head, which does not learn them; they are scored"
        logger.warning(message, split, lost, entities)


def report_findings(split: str, findings: Findings, source: str = "") -> None:
    """Log counts of annotation problems and the first few in detail; the log file of the run has all of them."""
    for kind, count in findings.counts.items():
        logger.warning("%s: %d %s", split, count, kind)
    for number, remark in enumerate(findings.remarks):
        logger.log(logging.WARNING if number < _REMARKS_SHOWN else logging.DEBUG, "%s: %s%s", split, source, remark)
    if len(findings.remarks) > _REMARKS_SHOWN:
        logger.warning("%s: %d more in the log file", split, len(findings.remarks) - _REMARKS_SHOWN)


def _report_duplicates(corpus: Corpus, split: str, sentences: int) -> None:
    """Log how many sentences occur twice in train, or in train and in the split to score."""
    if split == "train":
        repeated = repeated_sentences(corpus, split)
        if repeated:
            logger.info("train: %d duplicate sentences (%.1f %%)", repeated, 100 * repeated / sentences)
    elif corpus.has("train") and (known := sentences_of_train(corpus, split)):
        level = logging.WARNING if known >= _OVERLAP_WORTH_A_WARNING * sentences else logging.INFO
        message = "%s: %d of %d sentences (%.1f %%) also occur in train; their scores say little about new text"
        logger.log(level, message, split, known, sentences, 100 * known / sentences)
