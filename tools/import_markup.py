"""Import the answers of a language model that marked entities, as a source for ``tools.combine_sources``.

python -m tools.import_markup answers.jsonl --source llm --output layer.jsonl

``docs/labels.md`` shows the forms of answers.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.command_line import Bounds, CommandLine
from common.log import console, console_table, setup_logging
from processors.examples import DataError, Example, Findings
from processors.formats.json_files import read_records
from processors.formats.label_studio import guid_of
from processors.formats.markup import Failure, align, read_answer
from processors.formats.records import RecordReader
from processors.formats.writers import write_records
from processors.layers import SOURCES
from processors.spans import Reading, Source, Span
from processors.text.text_files import read_texts
from tools.script import run_script

logger = logging.getLogger("tools.import_markup")  # also when it is the main module
ANSWER = "answer"
_JSON_SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class AnsweredText:
    """A record with a text or words, without its answer, and the answer; ``None`` if there is none."""

    record: dict[str, Any]
    example: Example
    source: Source
    answer: Any


def main() -> None:
    parser = CommandLine(description=(__doc__ or "").partition("\n")[0])
    text = "JSON records with text or tokens, and with answer if no ANSWERS are given; or one text per line"
    parser.add_argument("texts", type=Path, help=text)
    text = "JSON records with answer, and with the id of the text or in the order of the texts; or one answer per line"
    parser.add_argument("answers", type=Path, nargs="?", help=text)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines to write; failures go beside it")
    parser.add_argument("--source", default="model", help="name of the source; default: model")
    text = "the types that were asked for; others are left out; default: all. A single one is that of @@surface##"
    parser.add_argument("--types", nargs="+", default=[], metavar="TYPE", help=text)
    text = "least similarity of a surface and the words of the text, without case and spaces; default: 0.8"
    parser.add_argument("--min_similarity", type=Bounds(float, above=0, at_most=1), default=0.8, help=text)
    args = parser.parse_args()
    setup_logging()
    if args.output.exists():
        raise DataError("already exists; name a new file", args.output)
    texts = read_answered(args.texts, args.answers, args.source)
    records, failures, counts = import_answers(texts, args.source, args.types, args.min_similarity)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for kind, count in write_records(records, args.output).counts.items():
        logger.warning("%s: %d %s", args.output, count, kind)
    write_records(failures, failures_of(args.output))
    rows = [[kind, str(count)] for kind, count in counts.items()]
    console().print(console_table(("what", "number"), rows, title=f"Answers of {args.source}"))
    logger.info("%d texts written to %s, what failed to %s", len(records), args.output, failures_of(args.output))


def failures_of(output: Path) -> Path:
    """The path of the list of what was not imported."""
    return output.with_suffix(".failures.jsonl")


def import_answers(
    texts: Sequence[AnsweredText], name: str, types: Sequence[str], min_similarity: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Counter[str]]:
    """Align the answers to their texts.

    Args:
        name: of the source.
        types, min_similarity: see `processors.formats.markup`.

    Returns:
        The records with this source, which abstains where there is no usable answer, and is not complete for types of
        entities that were not found in the text; records of what failed; counts.
    """
    records, failures = [], []
    counts = Counter(
        {"texts": len(texts), "texts without an answer": 0, "answers that cannot be used": 0, "entities": 0}
    )
    answers = [None if text.answer is None else read_answer(text.answer, types) for text in texts]
    known = {*types} or {mention.type for read in answers if read is not None for mention in read.mentions}
    pairs = zip(texts, answers, strict=True)
    for text, read in tqdm(pairs, "Aligning answers", len(texts), unit=" texts", leave=False, disable=None):
        if read is None:
            counts["texts without an answer"] += 1
            records.append(text.record)
            continue
        spans = align(read, text.example.text or "", min_similarity)
        layers = {**text.record.get(SOURCES, {})}
        if read.usable:
            said = _as_read(spans, text)
            lost = read.lost_types
            layers[name] = {"spans": said, "complete": sorted(known - lost)} if lost else said
            counts["entities"] += len(spans)
        else:
            counts["answers that cannot be used"] += 1
        records.append({**text.record, SOURCES: layers})
        for failure in read.failures:
            counts[failure.why.partition(":")[0]] += 1
            failures.append(_record(failure, text))
    return records, failures, counts


def _record(failure: Failure, text: AnsweredText) -> dict[str, Any]:
    place = f"{text.source.path}:{text.source.line}"
    return {"id": text.source.guid, "place": place, **failure._asdict()}


def _as_read(spans: Sequence[Span], text: AnsweredText) -> list[list[Any]]:
    """Spans as readers expect them: over characters; if there are words, over whole words or their numbers."""
    example = text.example
    if not example.words_given:
        return [[span.start, span.end, span.type] for span in spans]
    snapped = Reading().example(example.text or "", spans, text.source, example.offsets)
    if isinstance(text.record.get("text"), str):
        return [[*snapped.place(entity), entity.type] for entity in snapped.entities or ()]
    return [[entity.first_word, entity.last_word + 1, entity.type] for entity in snapped.entities or ()]


def read_answered(path: Path, answers: Path | None, name: str) -> list[AnsweredText]:
    """Read texts and the answers to them.

    Args:
        answers: a file of its own, with the ids of all texts or in their order.
        name: of the source, which the texts do not have yet.

    Raises:
        DataError: with all that is wrong with the files.
    """
    findings, reading = Findings(), Reading(split=path.stem, labelled=False)
    found = []
    for index, (line, record) in enumerate(_records(path, "text", findings)):
        try:
            source = Source(path, line, guid_of(record, f"{path.stem}-{index}"))
            if answers is None and ANSWER not in record:
                raise source.error(f"no {ANSWER}; add it, or name a file of answers")
            if name in (record.get(SOURCES) or {}):
                raise source.error(f"there is a source {name} already; choose another --source")
            answer = record.pop(ANSWER, None)
            (example,) = RecordReader(reading).read({key: record[key] for key in record if key != SOURCES}, source)
            found.append(AnsweredText(record, example, source, answer))
        except DataError as error:
            findings.fault(error)
        except ValueError:
            findings.fault(DataError("a document of several sentences; write a record for each", path, line))
    findings.faults += reading.findings.faults
    if answers is not None:
        found = list(_with_answers(found, answers, findings))
    findings.raise_faults()
    return found


def _records(path: Path, key: str, findings: Findings) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON records of a file, or a record with this key for each of its lines, with their lines."""
    if path.suffix not in _JSON_SUFFIXES:
        for number, text in enumerate(read_texts([str(path)]), start=1):
            yield number, {"id": text.id, key: text.text} if key == "text" else {key: text.text}
        return
    for line, record in read_records(path, findings):
        if isinstance(record, dict):
            yield line, record
        else:
            findings.fault(DataError(f"expected a JSON object, found {type(record).__name__}", path, line))


def _with_answers(texts: Sequence[AnsweredText], path: Path, findings: Findings) -> Iterator[AnsweredText]:
    """Yield the texts with their answers: by id if all answers have one, else in their order."""
    records = list(_records(path, ANSWER, findings))
    for line, record in records:
        if ANSWER not in record:
            findings.fault(DataError(f"no {ANSWER}; found {', '.join(record) or 'nothing'}", path, line))
    if not all("id" in record for _, record in records):
        if len(records) != len(texts):
            message = f"{len(records)} answers to {len(texts)} texts; give all answers the id of their text"
            findings.fault(DataError(message, path))
            return
        for text, (_, record) in zip(texts, records, strict=True):
            yield AnsweredText(text.record, text.example, text.source, record.get(ANSWER))
        return
    by_id: dict[str, Any] = {}
    known = {text.source.guid for text in texts}
    for line, record in records:
        guid = str(record["id"])
        if guid in by_id or guid not in known:
            why = "a second answer to" if guid in by_id else "there is no text with"
            findings.fault(DataError(f"{why} the id {guid!r}", path, line))
        by_id[guid] = record.get(ANSWER)
    for text in texts:
        yield AnsweredText(text.record, text.example, text.source, by_id.get(text.source.guid))


if __name__ == "__main__":
    run_script(main)
