"""Find annotations of the train split that are probably wrong, with models that have not seen them.

python -m tools.find_label_errors --task_name conll2003 --data_dir DATA --model_name_or_path ENCODER --output_dir OUT

Takes the flags of the training scripts. A model is trained for each fold of the train split, on the other folds, and
judges the entities of its fold. ``docs/annotation.md`` explains the result.
"""

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from analysis.label_errors import Likely, Suspicion, overlap, suspicions_in_text
from analysis.report.label_errors import write_label_errors_page
from common.durable import remove_folder
from common.entities import Annotation, Entity
from common.log import console, console_table, setup_logging
from common.options import option
from models import BertCrfForNer
from models.heads.flat import FlatTagger
from models.tagger import Tagger
from processors.corpus import Corpus
from processors.examples import Example
from processors.formats.corrections import CORRECTIONS, Correction
from processors.formats.writers import entity_record, json_line
from processors.tasks import task_named
from tools.command_line import chosen_head, parse_flags
from tools.data import check_entities, load_and_cache_examples
from tools.decoding import encoded_documents, padded_batches
from tools.evaluate import gold_entities
from tools.folds import make_folds, trained_model, write_fold
from tools.run import Run, corpus_of
from tools.run_folder import unlock_run_folder, write_json
from tools.script import run_script
from tools.settings import Settings, require

logger = logging.getLogger("tools.find_label_errors")  # also when it is the main module
_SHOWN = 20
_LAST = True, 1.0  # after all suspicions
_LEAST_CANDIDATE = 0.02  # probability of an entity that may be a suggestion


@dataclass(frozen=True)
class LabelErrorOptions:
    """Flags of the search for label errors."""

    folds: int = option(5, "number of parts of the train split, each judged by a model of the others", at_least=2)
    min_suspicion: float = option(
        0.5,
        "least suspicion of what is listed; 0: all that the models would annotate otherwise",
        common=True,
        at_least=0,
        at_most=1,
    )
    tasks: str = option(
        "", "also write a file to correct the annotations in this tool", ["", *CORRECTIONS], common=True
    )


@dataclass(frozen=True)
class JudgedText:
    """What a model that has not seen a text says about it.

    Args:
        text: index in the train split.
        suspicions: of its annotation, at least as suspicious as asked for.
        entities, confidences: what the model finds.
    """

    text: int
    suspicions: list[Suspicion]
    entities: list[Entity]
    confidences: list[float]


def main() -> None:
    head = chosen_head(BertCrfForNer)
    description = (__doc__ or "").partition("\n")[0]
    settings, (options,) = parse_flags(Settings(head=head.Options()), description, more=[LabelErrorOptions])
    find_label_errors(settings, options, head)


def find_label_errors(settings: Settings, options: LabelErrorOptions, head: type[Tagger]) -> list[dict[str, Any]]:
    """Train the models that are missing, judge the train split, and write what is suspicious.

    Returns:
        The records of ``label_errors.jsonl``.

    Raises:
        ValueError: settings are missing, or the folder holds the folds of other data or settings.
    """
    require(settings, "task_name", "output_dir", "model_name_or_path")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError("the folds are trained by one process; start it without a launcher")
    if task_named(settings.data.task_name).plain_tags:
        raise ValueError(f"--task_name {settings.data.task_name}: its labels are classes of words, not entities")
    if head.candidates is Tagger.candidates:
        raise ValueError(f"{head.__name__} gives no probabilities of entities that it does not predict")
    home, corpus = Path(settings.actions.output_dir), corpus_of(settings.data)
    check_entities(corpus)
    examples = [one for one in corpus.examples_with_lines("train") if one.words and one.entities is not None]
    _check_same_folds(home, settings, options, corpus)
    judged: list[JudgedText] = []
    folds = make_folds(examples, options.folds, settings.optimisation.seed)
    for fold in folds:
        settings_of_fold = write_fold(fold, examples, corpus, settings)
        run, model, tokenizer = trained_model(settings_of_fold, head, "do_predict")
        logger.info("Fold %d of %d: %d texts to judge", fold.number, len(folds), len(fold.held_out))
        judged += judge(run, model, tokenizer, fold.held_out, options.min_suspicion)
        unlock_run_folder()
    setup_logging(home)
    records = _ranked(judged, examples, corpus)
    _write(home, records)
    if options.tasks:
        by_document = settings.model.document_context
        corrections = _corrections(judged, examples, by_document)
        path = home / f"to_correct{CORRECTIONS[options.tasks].suffix}"
        for kind, count in CORRECTIONS[options.tasks].write(corrections, path).counts.items():
            logger.warning("%s: %d %s", path, count, kind)
        logger.info("Tasks to correct the annotations: %s", path)
    return records


def _check_same_folds(home: Path, settings: Settings, options: LabelErrorOptions, corpus: Corpus) -> None:
    """Keep what determines the models of the folds, and refuse to mix them with others."""
    ignored = {"output_dir", "overwrite_output_dir", "overwrite_cache", "feature_cache_dir", "num_workers"}
    wanted = {name: value for name, value in settings.flat().items() if name not in ignored}
    wanted = json.loads(json.dumps(wanted | {"folds": options.folds, "train": corpus.digest("train")}))
    path = home / "folds.json"
    found = json.loads(path.read_text("utf-8")) if path.is_file() else wanted
    if others := [name for name in wanted.keys() & found.keys() if wanted[name] != found[name]]:
        if not settings.actions.overwrite_output_dir:
            advice = "name another --output_dir, or add --overwrite_output_dir"
            raise ValueError(f"{home} holds folds with another {', '.join(sorted(others))}; {advice}")
        for old in home.glob("fold_*"):
            remove_folder(old)
    home.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)


@torch.no_grad()
def judge(
    run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase, texts: Sequence[int], min_suspicion: float
) -> Iterator[JudgedText]:
    """Compare the annotation of the test split of a run with what its model says.

    Args:
        texts: index of each of its texts in the train split.
    """
    dataset = load_and_cache_examples(run, run.settings.data.task_name, tokenizer, "test")
    if dataset.num_documents != len(texts):
        raise ValueError(f"{len(texts)} texts were written, but {dataset.num_documents} were read")
    for emissions, documents in encoded_documents(run, model, dataset, "Judging"):
        for rows, mask, batch in padded_batches(dataset, emissions, documents):
            annotations = [dataset.annotation(document) for document in batch]
            gold = [gold_entities(one, model.nests) for one in annotations]
            candidates = [
                _told(one, found)
                for one, found in zip(annotations, model.candidates(rows, mask, _LEAST_CANDIDATE), strict=True)
            ]
            of_gold = _likely(model, rows, mask, gold, candidates)
            others = _likely(model, rows, mask, [[one for one, _ in row] for row in candidates], candidates)
            predictions = model.predict(rows, mask, with_confidence=True)
            for place, (document, prediction) in enumerate(zip(batch, predictions, strict=True)):
                found = suspicions_in_text(of_gold[place], others[place])
                suspicions = [one for one in found if one.suspicion >= min_suspicion]
                yield JudgedText(texts[document], suspicions, prediction.entities, prediction.confidences)


def _told(annotation: Annotation, candidates: list[tuple[Entity, float]]) -> list[tuple[Entity, float]]:
    """The candidates that contradict or confirm what is annotated, of a text that is annotated in part."""
    if not annotation.is_partial:
        return candidates
    told = set(annotation.judged(entity for entity, _ in candidates))
    return [pair for pair in candidates if pair[0] in told]


def _likely(
    model: Tagger,
    rows: Tensor,
    mask: Tensor,
    entities: Sequence[Sequence[Entity]],
    candidates: Sequence[Sequence[tuple[Entity, float]]],
) -> list[list[Likely]]:
    """Entities of each row with their probabilities.

    Args:
        candidates: all that a head says whose entities are not tags; it takes them as independent.
    """
    if isinstance(model, FlatTagger):
        probabilities = model.entity_confidences(rows, mask, entities)
        outside = model.outside_confidences(rows, mask, [[one[1:] for one in row] for row in entities])
    else:
        known = [(row, dict(found)) for row, found in zip(entities, candidates, strict=True)]
        probabilities = [[found.get(one, 0.0) for one in row] for row, found in known]
        outside = [
            [math.prod(1 - value for other, value in found.items() if overlap(one, other)) for one in row]
            for row, found in known
        ]
    both = zip(entities, probabilities, outside, strict=True)
    return [[Likely(*one) for one in zip(*row, strict=True)] for row in both]


def _ranked(judged: Sequence[JudgedText], examples: Sequence[Example], corpus: Corpus) -> list[dict[str, Any]]:
    """Records of all suspicions, the most suspicious first."""
    inventory = corpus.inventory("train")
    found = [(text.text, one) for text in judged for one in text.suspicions]
    found.sort(key=lambda one: (one[1].order, one[0]))
    records = []
    for rank, (text, one) in enumerate(found, start=1):
        example = examples[text]
        shown = one.gold or one.suggestion
        line = example.line_of(shown.first_word) if shown else example.line
        records.append(
            {
                "rank": rank,
                "suspicion": round(one.suspicion, 6),
                "kind": one.kind,
                "id": example.guid,
                "place": inventory.place(line),
                "words": example.words,
                "gold": _entity(example, one.gold),
                "gold_probability": round(one.probability, 6),
                "suggestion": _entity(example, one.suggestion),
                "suggestion_probability": round(one.confidence, 6),
            }
        )
    return records


def _entity(example: Example, entity: Entity | None) -> dict[str, Any] | None:
    return entity_record(entity, example.text or "", example.offsets) if entity else None


def _write(home: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write the JSON lines and the page, and print the first records."""
    path = home / "label_errors.jsonl"
    path.write_text("".join(f"{json_line(record)}\n" for record in records), "utf-8")
    page = write_label_errors_page(records, home / "label_errors.html")
    rows = [
        [
            Path(record["place"]).name,
            _shown(record["gold"]),
            _shown(record["suggestion"]),
            f"{record['suspicion']:.4f}",
        ]
        for record in records[:_SHOWN]
    ]
    columns = ("place", "annotated", "suggested", "suspicion")
    console().print(console_table(columns, rows, names=3, title="Probably wrong annotations"))
    logger.info("%d suspicious annotations: %s, %s", len(records), path, page)


def _shown(entity: dict[str, Any] | None) -> str:
    return f"{entity['type']}: {entity['text']}" if entity else "-"


def _corrections(judged: Sequence[JudgedText], examples: Sequence[Example], by_document: bool) -> list[Correction]:
    """All texts, in the order of their first suspicion.

    Args:
        by_document: whether the sentences of a document stay together, because they are context of each other.
    """
    first: dict[str, tuple[bool, float]] = {}
    corrections = []
    for text in sorted(judged, key=lambda one: one.text):
        example, predicted, remarks = examples[text.text], None, []
        unit = example.document if by_document and example.document else f"text {text.text}"
        first[unit] = min([first.get(unit, _LAST), *(one.order for one in text.suspicions)])
        for one in sorted(text.suspicions, key=lambda one: one.order):
            remarks.append(f"{_shown(_entity(example, one.gold))} -> {_shown(_entity(example, one.suggestion))}")
        if text.suspicions:
            predicted = Example(example.guid, example.words, text.entities, example.text, example.offsets)
            predicted.confidences = text.confidences
        suspicion = max((one.suspicion for one in text.suspicions), default=0.0)
        corrections.append((unit, Correction(example, predicted, suspicion, "; ".join(remarks))))
    units = {unit: place for place, unit in enumerate(sorted(first, key=lambda unit: first[unit]))}
    return [correction for _, correction in sorted(corrections, key=lambda one: units[one[0]])]


if __name__ == "__main__":
    run_script(main)
