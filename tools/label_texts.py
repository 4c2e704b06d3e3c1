"""Label texts with a trained model, but only where it is certain, to train another model on them (self-training).

python -m tools.label_texts outputs/run unlabelled.txt --certainty 0.95 --output labelled.jsonl

``docs/labels.md`` shows the whole recipe.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from common.command_line import Bounds, CommandLine
from common.entities import Entity
from common.log import setup_logging
from models.tagger import Tagger
from processors.examples import DataError, Example
from processors.formats.writers import FORMATS
from processors.text.text_files import check_sources
from tools.data import dataset_of_texts, examples_in_parts
from tools.decoding import tag_documents
from tools.recipe import open_trained
from tools.run import Run
from tools.script import run_script

logger = logging.getLogger("tools.label_texts")  # also when it is the main module
_LEAST = 0.01  # probability of the entities whose sum is the probability that a word is in one


def certain_labels(
    words: int, candidates: Sequence[tuple[Entity, float]], certainty: float
) -> tuple[list[Entity], list[int]]:
    """Select the entities that are certain, and the words of which it is not certain whether they are in an entity.

    Args:
        words: number of words in the text.
        candidates: entities with their probabilities.
        certainty: least probability, more than 0.5; so flat entities that are certain cannot overlap.
    """
    certain = [entity for entity, probability in candidates if probability >= certainty]
    inside = np.zeros(words)  # probability that a word is in an entity
    for entity, probability in candidates:
        inside[entity.first_word : entity.last_word + 1] += probability
    unsure = inside > 1 - certainty
    for entity in certain:
        unsure[entity.first_word : entity.last_word + 1] = False
    return certain, unsure.nonzero()[0].tolist()


@torch.no_grad()
def label_texts(
    run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], certainty: float
) -> Iterator[Example]:
    """Label texts where the model is certain; what it is not certain of is unknown.

    Args:
        examples: texts with at least one word.
        certainty: see `certain_labels`.

    Raises:
        ValueError: the head gives no probabilities of entities that it does not predict.
    """
    dataset = dataset_of_texts(run, tokenizer, examples)
    for tagged in tag_documents(run, model, dataset, "Labelling", least=_LEAST):
        example = examples[tagged.document]
        entities, unsure = certain_labels(len(example.words), tagged.candidates, certainty)
        labelled = replace(example, entities=entities)
        labelled.set_unannotated(unsure)
        yield labelled


def main() -> None:
    parser = CommandLine(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="output_dir of a training run")
    parser.add_argument("files", nargs="+", metavar="FILE", help="texts, one per line, or .jsonl; may be .gz")
    text = "least probability of an entity, or of none at a word; all other words are unknown; default: 0.95"
    parser.add_argument("--certainty", type=Bounds(float, above=0.5, below=1), default=0.95, help=text)
    parser.add_argument("--output", type=Path, required=True, help="file to write, JSON lines")
    parser.add_argument("--head", default="", help="head of the model if it is your own, as module:Class")
    parser.add_argument("--no_cuda", action="store_true", help="use the CPU even if there is a GPU")
    args = parser.parse_args()
    setup_logging()
    if args.output.exists():
        raise DataError("already exists; name a new file", args.output)
    check_sources(args.files)
    run, model, tokenizer = open_trained(args.run, args.head, args.no_cuda)
    labelled = [
        one
        for examples in examples_in_parts(run, args.files)
        for one in label_texts(run, model, tokenizer, examples, args.certainty)
    ]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    FORMATS["jsonl"].write(labelled, args.output)
    words = sum(len(one.words) for one in labelled)
    known = sum(one.annotation.annotated_words for one in labelled)
    entities = sum(len(one.entities or ()) for one in labelled)
    message = "%d texts written to %s: %d entities; %.1f %% of %d words are labelled"
    logger.info(message, len(labelled), args.output, entities, 100 * known / max(words, 1), words)


if __name__ == "__main__":
    run_script(main)
