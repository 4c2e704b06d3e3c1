"""Predict the test split and write JSON lines, and a submission file if the task has one."""

import logging
import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from common.run_files import RunFolder
from models.tagger import Tagger
from processors.features.dataset import Document
from processors.formats.writers import FORMAT_VERSION, SUBMISSIONS, entity_record, json_line
from processors.spans import Span
from processors.tasks import task_named
from tools.data import load_and_cache_examples
from tools.decoding import TaggedDocument, tag_documents
from tools.distributed import is_main, run_on_main
from tools.evaluate import analyse_and_report
from tools.loading import adopt_model
from tools.run import Run

logger = logging.getLogger(__name__)


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
        for tagged in tag_documents(run, model, dataset, "Predicting", with_confidence=True):
            document = dataset.document(tagged.document)
            record = prediction_record(document, tagged)
            file.write(json_line(record) + "\n")
            if submission_line is not None:
                spans = [Span(one["type"], one["start"], one["end"]) for one in record["entities"]]
                submission.append(submission_line(document.guid, document.text, spans))
            if not document.annotation.is_complete:
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
