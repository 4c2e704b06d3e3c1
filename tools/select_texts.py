"""Choose the texts whose annotation a trained model would learn most from, and write them with its suggestions.

python -m tools.select_texts outputs/run unlabelled.txt --number 200 --to label_studio --output to_annotate.json

``docs/annotation.md`` explains the choice.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import heapify, heappop, heappush
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.command_line import Bounds, CommandLine
from common.log import console, console_table, setup_logging
from models.tagger import Prediction, Tagger, Uncertainty
from processors.examples import DataError, Example, Findings
from processors.formats.brat import check_brat_types, write_brat
from processors.formats.writers import FORMATS
from processors.text.near_duplicates import NearDuplicates
from processors.text.text_files import check_sources, read_texts
from tools.data import cut_texts, dataset_of_texts, examples_in_parts
from tools.decoding import encoded_documents, padded_batches, predicted_entities, probable_entities
from tools.recipe import open_trained
from tools.run import Run
from tools.script import run_script

logger = logging.getLogger("tools.select_texts")  # also when it is the main module
_LEAST_CANDIDATE = 0.01  # probability of an entity that may be missed
_SHOWN, _SHOWN_CHARACTERS = 10, 60
TARGETS = ("doccano", "doccano_utf16", "label_studio", "brat", "jsonl", "plain")

Words = Sequence[str]
Lessons = dict[tuple[str, ...], float]
_AGAIN = 0.5  # factor on the worth of a name for each time that it was chosen


@dataclass(frozen=True)
class Scored:
    """A text, the entities and confidences of the model, and what its annotation would teach.

    Args:
        lessons: worth of each name that the model is unsure of, by the words of the name; if the score is one of the
            whole text, a single lesson with all its words.
    """

    example: Example
    lessons: Lessons

    @property
    def score(self) -> float:
        """What the text teaches on its own."""
        return sum(self.lessons.values())


def by_entropy(model: Tagger, rows: Tensor, mask: Tensor, _: object, texts: Sequence[Words]) -> list[Lessons]:
    """Entropy of the distribution over the labels of the whole text, in nats."""
    return _of_whole_texts(texts, _uncertainty(model, rows, mask).entropy)


def by_path(model: Tagger, rows: Tensor, mask: Tensor, _: object, texts: Sequence[Words]) -> list[Lessons]:
    """Negative log-probability of the best labels of the text, per word (Shen et al. 2018)."""
    return _of_whole_texts(texts, -_uncertainty(model, rows, mask).best / mask.sum(1))


def _of_whole_texts(texts: Sequence[Words], worth: Tensor) -> list[Lessons]:
    return [{tuple(words): value} for words, value in zip(texts, worth.tolist(), strict=True)]


def _uncertainty(model: Tagger, rows: Tensor, mask: Tensor) -> Uncertainty:
    try:
        return model.uncertainty(rows, mask)
    except ValueError as error:
        raise ValueError(f"{error}; choose --by expected_errors") from error


def by_expected_errors(
    model: Tagger, rows: Tensor, mask: Tensor, predictions: Sequence[Prediction], texts: Sequence[Words]
) -> list[Lessons]:
    """Expected number of predicted entities that are wrong and of entities that are missed, per word."""
    scores = []
    probable = probable_entities(model, rows, mask, texts, _LEAST_CANDIDATE)
    for words, prediction, candidates in zip(texts, predictions, probable, strict=True):
        predicted = dict(zip(prediction.entities, prediction.confidences, strict=True))
        errors = {entity: probability for entity, probability in candidates if entity not in predicted}
        errors |= {entity: 1 - confidence for entity, confidence in predicted.items()}
        lessons = Lessons()
        for entity, error in errors.items():
            name = tuple(word.lower() for word in words[entity.first_word : entity.last_word + 1])
            lessons[name] = lessons.get(name, 0) + error / len(words)
        scores.append(lessons)
    return scores


Score = Callable[[Tagger, Tensor, Tensor, Sequence[Prediction], Sequence[Words]], list[Lessons]]
SCORES: dict[str, Score] = {
    "entropy": by_entropy,
    "path": by_path,
    "expected_errors": by_expected_errors,
}


@torch.no_grad()
def score_texts(
    run: Run, model: Tagger, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], by: str
) -> Iterator[Scored]:
    """Score texts, in any order, and add the entities that the model finds.

    Args:
        examples: texts with at least one word.
        by: one of ``SCORES``.

    Raises:
        ValueError: the head of the model has no such score.
    """
    dataset = dataset_of_texts(run, tokenizer, examples)
    for emissions, documents in encoded_documents(run, model, dataset, "Scoring"):
        for rows, mask, batch in padded_batches(dataset, emissions, documents):
            texts = [examples[document].words for document in batch]
            predictions = predicted_entities(model, rows, mask, texts)
            scores = SCORES[by](model, rows, mask, predictions, texts)
            for document, prediction, lessons in zip(batch, predictions, scores, strict=True):
                entities, confidences = prediction.entities, prediction.confidences
                yield Scored(replace(examples[document], entities=entities, confidences=confidences), lessons)


def choose(
    scored: Sequence[Scored], enough: Callable[[Sequence[Scored]], bool], most_similar: float, known: Iterable[Example]
) -> tuple[list[Scored], int]:
    """Choose the texts that teach most, one after another, without those similar to one that is known or chosen.

    Args:
        enough: whether so many are enough.
        most_similar: see `processors.text.near_duplicates.NearDuplicates`; above 1 all texts differ.
        known: texts to leave out.

    Returns:
        The texts as they were chosen, and the number of similar ones that were passed over.
    """
    there, chosen, passed_over = NearDuplicates(most_similar), list[Scored](), 0
    for example in known:
        there.add(example.words)
    taught = Counter[tuple[str, ...]]()

    def worth(one: Scored) -> float:
        return sum(value * _AGAIN ** taught[name] for name, value in one.lessons.items())

    # Worth only falls: a text whose worth was just recomputed and still comes first is the best.
    waiting = [(-one.score, place) for place, one in enumerate(scored)]
    heapify(waiting)
    while waiting and not enough(chosen):
        before, place = heappop(waiting)
        one, now = scored[place], -worth(scored[place])
        if now > before:
            heappush(waiting, (now, place))
        elif there.has_similar(one.example.words):
            passed_over += 1
        else:
            there.add(one.example.words)
            taught.update(one.lessons.keys())
            chosen.append(one)
    return chosen, passed_over


def write_plain(examples: Iterable[Example], path: Path) -> Findings:
    """Write one text per line."""
    examples = list(examples)
    for one in examples:
        if "\n" in (one.text or "") or "\r" in (one.text or ""):
            raise DataError(f"{one.guid}: a line break inside the text, which plain lines cannot hold; use --to jsonl")
    path.write_text("".join(f"{one.text}\n" for one in examples), "utf-8", "replace")
    return Findings()


def main() -> None:
    parser = CommandLine(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="output_dir of a training run")
    parser.add_argument("files", nargs="+", metavar="FILE", help="texts, one per line, or .jsonl; may be .gz")
    parser.add_argument("--number", type=Bounds(int, at_least=1), default=200, help="number of texts to choose")
    text = "what makes a text worth annotating; default: expected_errors"
    parser.add_argument("--by", choices=list(SCORES), default="expected_errors", help=text)
    text = "texts that share at least this part of their words are near-duplicates: one is chosen; default: 0.5"
    parser.add_argument("--most_similar", type=Bounds(float, above=0, at_most=1), default=0.5, help=text)
    text = "texts that are annotated already; they and their near-duplicates are left out"
    parser.add_argument("--leave_out", nargs="*", default=[], metavar="FILE", help=text)
    parser.add_argument("--to", choices=TARGETS, default="jsonl", help="format to write; default: jsonl")
    parser.add_argument("--output", type=Path, required=True, help="file to write, or folder for brat")
    parser.add_argument("--head", default="", help="head of the model if it is your own, as module:Class")
    parser.add_argument("--no_cuda", action="store_true", help="use the CPU even if there is a GPU")
    args = parser.parse_args()
    setup_logging()
    if args.output.exists():
        raise DataError("already exists; name a new file or folder", args.output)
    check_sources([*args.files, *args.leave_out])
    run, model, tokenizer = open_trained(args.run, args.head, args.no_cuda)
    if args.to == "brat":
        check_brat_types(model.types)
    scored = [
        one
        for examples in examples_in_parts(run, args.files)
        for one in score_texts(run, model, tokenizer, examples, args.by)
    ]
    known = cut_texts(run, read_texts(args.leave_out))
    chosen, passed_over = choose(scored, lambda found: len(found) >= args.number, args.most_similar, known)
    writers: dict[str, Callable[[Iterable[Example], Path], Findings]]
    writers = {"plain": write_plain, "brat": partial(write_brat, more_types=model.types)}
    write = writers.get(args.to) or FORMATS[args.to].write
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for kind, count in write((one.example for one in chosen), args.output).counts.items():
        logger.warning("%s: %d %s", args.output, count, kind)
    shown = [(one.score, one.example) for one in chosen[:_SHOWN]]
    rows = [
        [one.guid, (one.text or "")[:_SHOWN_CHARACTERS], str(len(one.words)), f"{score:.3f}"] for score, one in shown
    ]
    console().print(console_table(("id", "text", "words", args.by), rows, names=2, title="Texts to annotate"))
    message = "%d of %d texts written to %s; %d near-duplicates of others were passed over"
    logger.info(message, len(chosen), len(scored), args.output, passed_over)


if __name__ == "__main__":
    run_script(main)
