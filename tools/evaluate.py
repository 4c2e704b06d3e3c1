"""Score dev and predict test: compute the results, print them and write them."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from analysis.analysis import Analysis, analyse, analysis_tables, score_table, suspicions
from analysis.dial import LEAST, Candidates, Dial, Dials
from analysis.documents import ScoredDocument, training_names, write_documents
from analysis.metrics import EntityScores, score_entities, score_tags
from analysis.report.charts import draw_on_board
from callbacks import ScoredText
from common.entities import Annotation, Entity, in_text_order, outermost
from common.log import console
from common.run_files import RunFolder
from common.tag_schemes import MARKUPS, OUTSIDE, entities_to_tags
from models.tagger import Tagger, casing_types, known_words
from processors.corpora import Corpora
from processors.features.dataset import Document, FeatureDataset
from processors.formats.partial import annotated_ranges
from processors.formats.writers import FORMAT_VERSION, SUBMISSIONS, entity_record, json_line
from processors.spans import Span
from processors.tasks import task_named
from tools.data import load_and_cache_examples
from tools.decoding import TaggedDocument, compatible_candidates, tag_documents
from tools.distributed import is_main, run_on_main
from tools.loading import adopt_model
from tools.run import Run
from tools.run_folder import write_json

logger = logging.getLogger(__name__)
_EXAMPLES = 8


@dataclass
class Coverage:
    """How much of a split is annotated.

    Args:
        words: number of all words.
        annotated: number of annotated words, by the types that their texts are complete for; ``None``: all types.
        types: types that are annotated or predicted.
    """

    words: int = 0
    annotated: Counter[frozenset[str] | None] = field(default_factory=Counter)
    types: set[str] = field(default_factory=set)

    def add(self, annotation: Annotation, predicted: Iterable[Entity]) -> None:
        self.words += annotation.words
        self.annotated[annotation.complete] += annotation.annotated_words
        self.types.update(one.type for one in (*(annotation.entities or ()), *predicted))

    @property
    def is_partial(self) -> bool:
        return self.annotated[None] < self.words

    @property
    def shares(self) -> dict[str, float]:
        """Share of the words that are annotated for each type."""
        return {name: self._words_of(name) / max(1, self.words) for name in sorted(self.types)}

    def _words_of(self, name: str) -> int:
        return sum(count for complete, count in self.annotated.items() if complete is None or name in complete)


@dataclass
class SplitScores:
    """Scores of a split.

    Args:
        entities: entity scores.
        loss: mean loss per word.
        examples: some texts with gold and predicted entities, those with errors first.
        analysis: further scores; ``None`` during training.
        coverage: how much of the split is annotated.
        corpora: scores of each corpus of several.
    """

    entities: EntityScores
    loss: float
    examples: list[ScoredText] = field(default_factory=list)
    analysis: Analysis | None = None
    coverage: Coverage = field(default_factory=Coverage)
    corpora: "dict[str, SplitScores]" = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        further = self.analysis.as_dict() if self.analysis else {}
        if self.coverage.is_partial:
            further["annotated"] = self.coverage.shares
        if self.corpora:
            further["corpora"] = {name: own.as_dict() for name, own in self.corpora.items()}
        return {"loss": self.loss, **self.entities.as_dict(), **further}

    def headline(self) -> dict[str, float]:
        """The scalar scores."""
        return {name: value for name, value in self.as_dict().items() if isinstance(value, float)}


def evaluate(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase, prefix: str = "") -> dict[str, Any]:
    """Score the dev split, print tables and write ``eval_results.txt``, ``.json`` and ``eval_documents.jsonl``.

    Args:
        prefix: subfolder of ``output_dir`` for the results, for example of a checkpoint.

    Returns:
        ``loss`` (mean per word), ``precision``, ``recall``, ``f1`` as conlleval computes them, ``strict_precision`` and
        so on for entities that are well-formed in the tag scheme, ``support``, the scores by type under ``types``, and
        the fields of `analysis.analysis.Analysis`.
    """
    run = adopt_model(run, model)
    dataset = load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "dev")
    check_dataset(dataset, model)
    tagged = list(tag_documents(run, model, dataset, "Evaluating", True, LEAST if model.has_candidates else None))
    return analyse_and_report(run, model, dataset, tagged, "dev", prefix)


def analyse_and_report(
    run: Run,
    model: Tagger,
    dataset: FeatureDataset,
    tagged: Sequence[TaggedDocument],
    split: str,
    prefix: str,
) -> dict[str, Any]:
    """Compute, print, write and return all scores of predictions; plot them if TensorBoard is enabled.

    Args:
        tagged: predictions with confidences, and with candidates if the head has them.
        split: ``dev`` or ``test``.
        prefix: subfolder of ``output_dir`` for the results.
    """
    folder = RunFolder(run.folder.path / prefix)
    _warn_of_unknown_labels(model, dataset, split)
    all_gold = [in_text_order(dataset.annotation(one.document).entities or ()) for one in tagged]
    scores = score_tagged(tagged, dataset, run.markup, model.nests)
    if isinstance(run.corpus, Corpora):
        for name, own in _by_corpus(run.corpus, dataset, tagged).items():
            scores.corpora[name] = score_tagged(own, dataset, run.markup, model.nests)
    tagged = [judged(one, dataset.annotation(one.document)) for one in tagged]
    documents = [_scored_document(dataset, document, model.nests) for document in tagged]
    dials = _dials(dataset, tagged, model) if model.has_candidates else None
    of_dev = dials if split == "dev" else _dials_of_dev(folder)
    rows = of_dev.rows(dials) if dials and of_dev else None
    analysis = scores.analysis = analyse(documents, training_names(run.corpus), rows, all_gold)
    report_scores(scores, folder, split, f"{split} {prefix}".strip())
    run_on_main(lambda: write_documents(folder.documents(split), documents))
    if dials:
        run_on_main(lambda: dials.write(folder.dial(split)))
    if "tensorboard" in run.settings.logging.reporters:
        run_on_main(lambda: draw_on_board(run.folder.path, prefix, split, documents, analysis, dials))
    return scores.as_dict()


def _by_corpus(
    corpora: Corpora, dataset: FeatureDataset, tagged: Iterable[TaggedDocument]
) -> dict[str, list[TaggedDocument]]:
    found = dict[str, list[TaggedDocument]]()
    for one in tagged:
        found.setdefault(corpora.member_of(dataset.document(one.document).guid), []).append(one)
    return found


def _dials(dataset: FeatureDataset, tagged: Iterable[TaggedDocument], model: Tagger) -> Dials:
    compatible, overlapping = list[Candidates](), list[Candidates]()
    for one in tagged:
        source = dataset.document(one.document)
        gold = gold_entities(source.annotation, model.nests)
        overlapping.append(Candidates(source.source, gold, one.candidates))
        compatible.append(Candidates(source.source, gold, compatible_candidates(model, one.candidates)))
    return Dials(Dial.of(compatible, model.types), Dial.of(overlapping, model.types))


def _dials_of_dev(folder: RunFolder) -> Dials | None:
    """The dials that the run's dev split has given; ``None`` if it was not scored, or by an earlier version."""
    return Dials.read(folder.dial("dev")) if folder.dial("dev").is_file() else None


def score_dataset(run: Run, model: Tagger, dataset: FeatureDataset, desc: str) -> SplitScores:
    """Tag and score a labelled dataset, without the further analysis."""
    check_dataset(dataset, model)
    return score_tagged(tag_documents(run, model, dataset, desc), dataset, run.markup, model.nests)


def judged(tagged: TaggedDocument, annotation: Annotation) -> TaggedDocument:
    """Leave out the predictions of a document of which its annotation does not tell whether they are right."""
    if not annotation.is_partial:
        return tagged
    entities = annotation.judged(tagged.entities)
    probable = set(annotation.judged(entity for entity, _ in tagged.candidates))
    tags = list(tagged.tags)
    for one in set(tagged.entities) - set(entities):
        tags[one.first_word : one.last_word + 1] = [OUTSIDE] * one.words
    return tagged._replace(
        tags=tags,
        entities=entities,
        confidences=[value for one, value in zip(tagged.entities, tagged.confidences, strict=False) if one in entities],
        candidates=[pair for pair in tagged.candidates if pair[0] in probable],
    )


def _annotated_tags(
    annotation: Annotation, gold: Sequence[str], found: Sequence[str]
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Gold and predicted tags of each stretch of words that are annotated."""
    for first, last in annotated_ranges(annotation):
        yield gold[first : last + 1], found[first : last + 1]


def score_tagged(
    documents: Iterable[TaggedDocument], dataset: FeatureDataset, markup: str, nests: bool = False
) -> SplitScores:
    """Score predictions for all documents of a dataset.

    Args:
        markup: tag scheme of the tags, which are scored too; gold tags are those of the outermost entities.
        nests: whether the model can predict overlapping entities; otherwise only the outermost gold entities count.
    """
    gold, found, loss = list[list[Entity]](), list[list[Entity]](), 0.0
    tags: list[tuple[Sequence[str], Sequence[str]]] = []
    right, wrong = list[tuple[int, int]](), list[tuple[int, int]]()  # documents, and their places in these lists
    coverage = Coverage()
    for one in documents:
        annotation = dataset.annotation(one.document)
        tagged = judged(one, annotation)
        coverage.add(annotation, one.entities)
        gold.append(gold_entities(annotation, nests))
        found.append(tagged.entities)
        wanted = entities_to_tags(outermost(gold[-1]), annotation.words, MARKUPS[markup])
        tags += _annotated_tags(annotation, wanted, tagged.tags) if annotation.is_partial else [(wanted, tagged.tags)]
        loss += tagged.loss
        (right if set(gold[-1]) == set(tagged.entities) else wrong).append((one.document, len(gold) - 1))
    shown = [*wrong, *right][:_EXAMPLES]
    examples = [_scored_text(dataset, document, gold[place], found[place]) for document, place in shown]
    scores = score_entities(gold, found)
    scores.strict, scores.accuracy = score_tags(tags, markup)
    return SplitScores(scores, loss / max(1, coverage.annotated.total()), examples, coverage=coverage)


def gold_entities(annotation: Annotation, nests: bool) -> list[Entity]:
    """Gold entities in order: all of them, or only those that flat tags can express."""
    found = annotation.entities or ()
    return sorted(found, key=lambda one: (one.first_word, one.last_word, one.type)) if nests else outermost(found)


def _scored_text(dataset: FeatureDataset, index: int, gold: Sequence[Entity], found: Sequence[Entity]) -> ScoredText:
    document = dataset.document(index)
    both = ([entity_record(one, document.text, document.offsets) for one in entities] for entities in (gold, found))
    return ScoredText(document.text, *([f"{one['type']}: {one['text']}" for one in records] for records in both))


def _scored_document(dataset: FeatureDataset, tagged: TaggedDocument, nests: bool) -> ScoredDocument:
    source = dataset.document(tagged.document)
    confidences = tuple(round(confidence, 6) for confidence in tagged.confidences)
    gold = gold_entities(source.annotation, nests)
    return ScoredDocument(source.guid, source.words, gold, tagged.entities, confidences)


def _warn_of_unknown_labels(model: Tagger, dataset: FeatureDataset, split: str) -> None:
    """Log how many annotated words have a label that the model lacks."""
    if not model.missing_labels:
        return
    known = (dataset.annotation(n) for n in range(dataset.num_documents))
    annotations = [replace(one, unannotated=(), complete=None) for one in known]
    if unknown := sum(int((~known_words(model.encode([one])))[0, : one.words].sum()) for one in annotations):
        message = "%s: %d of %d words have a tag that the model lacks; they do not count in the loss: %s"
        logger.warning(message, split, unknown, dataset.num_words, ", ".join(model.missing_labels))


def check_dataset(dataset: FeatureDataset, model: Tagger) -> None:
    """Raise a ValueError if entity types or casing token types of a dataset do not match the model's."""
    if unknown := sorted(set(dataset.types) - set(model.types)):
        missing = f"entities of type {', '.join(unknown)}, which the model lacks ({model.types})"
        raise ValueError(f"the dataset has {missing}")
    types = casing_types(model)
    if tuple(dataset.layout.casing_segments) != types:
        built = f"the dataset was built with casing token types {list(dataset.layout.casing_segments)}"
        advice = "call load_and_cache_examples with the run of that model"
        raise ValueError(f"{built}, the model has {list(types)}; {advice}")


def report_scores(scores: SplitScores, folder: RunFolder, split: str, title: str) -> None:
    """Print the scores and write them as JSON and text. All ranks must call it; rank 0 writes."""

    def report() -> None:
        terminal = console()
        analysis = scores.analysis
        terminal.print(score_table(scores.entities, title, analysis.intervals if analysis else None))
        if analysis:
            terminal.print(analysis_tables(analysis))
            for finding in suspicions(analysis.confusion):
                logger.warning("%s: %s", title, finding)
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.results(split), scores.as_dict())
        lines = [f"{key} = {value}" for key, value in scores.headline().items()]
        for entity_type, score in scores.entities.types.items():
            numbers = f"precision = {score.precision} recall = {score.recall} f1 = {score.f1} support = {score.support}"
            lines.append(f"{entity_type}: {numbers}")
        for entity_type, share in scores.coverage.shares.items() if scores.coverage.is_partial else ():
            lines.append(f"{entity_type}: annotated = {share}")
        for name, own in scores.corpora.items():
            one = own.entities.micro
            lines.append(f"{name}: precision = {one.precision} recall = {one.recall} f1 = {one.f1}")
        for key, (low, high) in analysis.intervals.items() if analysis else ():
            lines.append(f"{key} 95 % interval = {low} {high}")
        folder.results(split, "txt").write_text("\n".join(lines) + "\n", "utf-8")
        for name, own in scores.corpora.items():
            one = own.entities.micro
            shown = (100 * one.f1, 100 * one.precision, 100 * one.recall, one.support)
            logger.info("%s of %s: F1 %.2f, precision %.2f, recall %.2f of %d entities", title, name, *shown)
        if scores.coverage.is_partial:
            shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in scores.coverage.shares.items())
            message = "%s: annotated in part, predictions elsewhere do not count; words annotated for each type: %s"
            logger.info(message, title, shares)
        place = folder.results(split).with_suffix("")
        logger.info("%s: F1 %.4f, loss %.4f; written to %s", title, scores.entities.micro.f1, scores.loss, place)

    run_on_main(report)


def predict(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase, prefix: str = "") -> dict[str, Any]:
    """Tag the test split, write ``test_predictions.jsonl``, and score the predictions if the split is labelled.

    Each line has ``format_version``, ``id``, ``text``, ``tokens``, ``tags`` and ``entities``. An entity has a ``type``,
    ``first_word`` and ``last_word`` (inclusive), character offsets ``start`` and ``end`` (exclusive), its ``text``, and
    a ``confidence``: the probability of exactly this entity.

    Args:
        prefix: subfolder of ``output_dir`` for the results.

    Returns:
        Scores as `tools.evaluate.evaluate` returns them; empty for an unlabelled split.
    """
    run, task = adopt_model(run, model), run.settings.data.task_name
    dataset = load_and_cache_examples(run, task, tokenizer, "test")
    folder = RunFolder(run.folder.path / prefix)
    run_on_main(lambda: folder.path.mkdir(parents=True, exist_ok=True))
    labelled, submission, unlabelled = [], [], 0
    submission_line = SUBMISSIONS.get(task_named(task).submission or "")
    with (folder.predictions if is_main() else Path(os.devnull)).open("w", encoding="utf-8") as file:
        least = LEAST if model.has_candidates else None
        for tagged in tag_documents(run, model, dataset, "Predicting", True, least):
            document = dataset.document(tagged.document)
            record = prediction_record(document, tagged)
            file.write(json_line(record) + "\n")
            if submission_line is not None:
                spans = [Span(one["type"], one["start"], one["end"]) for one in record["entities"]]
                submission.append(submission_line(document.guid, document.text, spans))
            if document.annotation.entities is None:
                unlabelled += 1
            else:
                labelled.append(tagged)
    if is_main():
        logger.info("Predictions of %d texts written to %s", dataset.num_documents, folder.predictions)
        if submission:
            folder.submission(task).write_text("\n".join(submission) + "\n", "utf-8")
            logger.info("Submission file: %s", folder.submission(task))
    if unlabelled:
        logger.info("test is not scored: %d of %d texts are unlabelled", unlabelled, dataset.num_documents)
        return {}
    return analyse_and_report(run, model, dataset, labelled, "test", prefix)


def prediction_record(document: Document, tagged: TaggedDocument) -> dict[str, Any]:
    """One line of the predictions file."""
    found = [
        {**entity_record(entity, document.text, document.offsets), "confidence": round(confidence, 6)}
        for entity, confidence in zip(tagged.entities, tagged.confidences, strict=True)
    ]
    return {
        "format_version": FORMAT_VERSION,
        "id": document.guid,
        "text": document.text,
        "tokens": document.words,
        "tags": tagged.tags,
        "entities": found,
    }
