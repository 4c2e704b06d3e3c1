"""Scores of a split, printed, written and returned."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from analysis.analysis import Analysis, analyse, suspicions
from analysis.documents import ScoredDocument, training_names, write_documents
from analysis.metrics import EntityScores, score_entities, score_table, score_tags
from analysis.report.charts import draw_on_board
from analysis.tables import analysis_tables
from callbacks import ScoredText
from common.entities import Annotation, Entity, outermost
from common.log import console
from common.run_files import RunFolder
from common.tag_schemes import MARKUPS, entities_to_tags
from models.tagger import Tagger, known_words
from processors.features.dataset import FeatureDataset
from processors.formats.writers import entity_record
from tools.data import load_and_cache_examples
from tools.decoding import TaggedDocument, tag_documents
from tools.distributed import run_on_main
from tools.loading import adopt_model
from tools.preparation import casing_types
from tools.run import Run
from tools.run_folder import write_json

logger = logging.getLogger(__name__)
_EXAMPLES = 8


@dataclass
class SplitScores:
    """Entity scores, the mean loss a word, and some texts with what was found in them, wrong ones first.

    The analysis is there only where it was asked for, after training.
    """

    entities: EntityScores
    loss: float
    examples: list[ScoredText] = field(default_factory=list)
    analysis: Analysis | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            **self.entities.as_dict(),
            **(self.analysis.as_dict() if self.analysis else {}),
        }

    def headline(self) -> dict[str, float]:
        """The numbers that are one each for the whole split."""
        return {name: value for name, value in self.as_dict().items() if isinstance(value, float)}


def evaluate(run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase, prefix: str = "") -> dict[str, Any]:
    """Scores the dev split, prints tables and writes ``eval_results.txt`` and ``.json`` and ``eval_documents.jsonl``.

    Args:
        prefix: folder below ``output_dir`` for the results, for instance of a checkpoint.

    Returns:
        ``loss`` (mean a word), ``precision``, ``recall``, ``f1`` in conlleval's reading, the same strictly by scheme
        as ``strict_precision`` and so on, ``support``, the scores by type under ``types``, and the fields of
        `analysis.analysis.Analysis`.
    """
    run = adopt_model(run, model)
    dataset = load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "dev")
    check_dataset(dataset, model)
    tagged = list(tag_documents(run, model, dataset, "Evaluating", with_confidence=True))
    return analyse_and_report(run, model, dataset, tagged, "dev", prefix)


def analyse_and_report(
    run: Run,
    model: Tagger,
    dataset: FeatureDataset,
    tagged: Sequence[TaggedDocument],
    split: str,
    prefix: str,
) -> dict[str, Any]:
    """Compares what was found with the gold entities in every way, prints, writes, draws and returns it.

    Args:
        tagged: with confidences.
        split: dev or test.
        prefix: folder below ``output_dir`` for the results.
    """
    folder = RunFolder(run.folder.path / prefix)
    _warn_of_unknown_labels(model, dataset, split)
    documents = [_scored_document(dataset, document, model.nests) for document in tagged]
    scores = score_tagged(tagged, dataset, run.markup, model.nests)
    analysis = scores.analysis = analyse(documents, training_names(run.corpus))
    report_scores(scores, folder, split, f"{split} {prefix}".strip())
    run_on_main(lambda: write_documents(folder.documents(split), documents))
    if "tensorboard" in run.settings.logging.reporters:
        run_on_main(lambda: draw_on_board(run.folder.path, prefix, split, documents, analysis.confusion))
    return scores.as_dict()


def score_dataset(run: Run, model: Tagger, dataset: FeatureDataset, desc: str) -> SplitScores:
    """Tags a labelled data set and compares, without analysis."""
    check_dataset(dataset, model)
    return score_tagged(tag_documents(run, model, dataset, desc), dataset, run.markup, model.nests)


def score_tagged(
    documents: Iterable[TaggedDocument], dataset: FeatureDataset, markup: str, nests: bool = False
) -> SplitScores:
    """Compares what a model found in all documents of a data set with the gold entities.

    Args:
        markup: of the tags that are compared too; tags are those of the outermost entities.
        nests: whether the model can find entities that overlap; otherwise only the outermost gold entities count.
    """
    gold, found, tags, loss = [], [], [], 0.0
    right, wrong = list[int](), list[int]()
    for tagged in documents:
        annotation = dataset.annotation(tagged.document)
        gold.append(gold_entities(annotation, nests))
        found.append(tagged.entities)
        tags.append((entities_to_tags(outermost(gold[-1]), annotation.words, MARKUPS[markup]), tagged.tags))
        loss += tagged.loss
        (right if set(gold[-1]) == set(tagged.entities) else wrong).append(tagged.document)
    shown = [*wrong, *right][:_EXAMPLES]
    examples = [_scored_text(dataset, index, gold[index], found[index]) for index in shown]
    scores = score_entities(gold, found)
    scores.strict, scores.accuracy = score_tags(tags, markup)
    return SplitScores(scores, loss / max(1, dataset.num_words), examples)


def gold_entities(annotation: Annotation, nests: bool) -> list[Entity]:
    """The entities that a model is to find, in order: all, or those that flat tags can express."""
    return list(annotation.entities or ()) if nests else outermost(annotation.entities or ())


def _scored_text(dataset: FeatureDataset, index: int, gold: Sequence[Entity], found: Sequence[Entity]) -> ScoredText:
    document = dataset.document(index)

    def in_words(entities: Sequence[Entity]) -> list[str]:
        records = (entity_record(entity, document.text, document.offsets) for entity in entities)
        return [f"{record['type']}: {record['text']}" for record in records]

    return ScoredText(document.text, in_words(gold), in_words(found))


def _scored_document(dataset: FeatureDataset, tagged: TaggedDocument, nests: bool) -> ScoredDocument:
    source = dataset.document(tagged.document)
    confidences = tuple(round(confidence, 6) for confidence in tagged.confidences)
    gold = gold_entities(source.annotation, nests)
    return ScoredDocument(source.guid, source.words, gold, tagged.entities, confidences)


def _warn_of_unknown_labels(model: Tagger, dataset: FeatureDataset, split: str) -> None:
    """Says how many annotated words have one of the labels that the model is missing."""
    if not model.missing_labels:
        return
    annotations = [replace(dataset.annotation(n), unannotated=()) for n in range(dataset.num_documents)]
    if unknown := sum(int((~known_words(model.encode([one])))[0, : one.words].sum()) for one in annotations):
        message = "%s: %d of %d words have a tag that the model does not have, and do not count in the loss: %s"
        logger.warning(message, split, unknown, dataset.num_words, ", ".join(model.missing_labels))


def check_dataset(dataset: FeatureDataset, model: Tagger) -> None:
    """Raises a ValueError where entity types, or token types of casings, of a data set are not the model's."""
    if unknown := sorted(set(dataset.types) - set(model.types)):
        raise ValueError(f"the data set has entities of type {', '.join(unknown)}, the model's are {model.types}")
    types = casing_types(model)
    if tuple(dataset.layout.casing_segments) != types:
        built = f"the data set's token types of casings are {list(dataset.layout.casing_segments)}"
        advice = "call load_and_cache_examples with the run of that model"
        raise ValueError(f"{built}, the model's {list(types)}; {advice}")


def report_scores(scores: SplitScores, folder: RunFolder, split: str, title: str) -> None:
    """Prints the table and writes it with all digits as JSON; all ranks call it, and rank 0 does it."""
    run_on_main(lambda: _report(scores, folder, split, title))


def _report(scores: SplitScores, folder: RunFolder, split: str, title: str) -> None:
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
    for key, (low, high) in analysis.intervals.items() if analysis else ():
        lines.append(f"{key} 95 % interval = {low} {high}")
    folder.results(split, "txt").write_text("\n".join(lines) + "\n", "utf-8")
    place = folder.results(split).with_suffix("")
    logger.info("%s: F1 %.4f, loss %.4f; written to %s", title, scores.entities.micro.f1, scores.loss, place)
