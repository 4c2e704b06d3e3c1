"""Conversion of a JSON record or table row to examples, for all known shapes of words and annotations."""

import ast
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

from common.entities import Entity
from common.tag_dialects import UnknownTagsError, canonical_tags
from common.tag_schemes import UNKNOWN, is_tag
from processors.examples import Example, Findings
from processors.formats import label_studio
from processors.formats.annotations import spans_of
from processors.formats.partial import PARTIAL_KEYS, complete_types_of, regions_of
from processors.spans import Reading, Source, Span, place_of
from processors.text.word_cutting import find_words

WORD_KEYS = ("tokens", "words", "tokenized_text", "sentence")
TEXT_KEYS = ("text", "data")
TAG_KEYS = ("tags", "ner_tags", "labels")
# Spans over words, with inclusive ends in [start, end, type]. ``ner`` of DyGIE counts words of the whole document.
_WORD_SPAN_KEYS = ("entity_mentions", "ner", "ners")
# Spans over the text if the record has one, else over its words.
_SPAN_KEYS = ("entities", "spans", "label", "labels", "ents", "annotations")
DOCUMENT_KEYS = ("doc_id", "document_id", "docid", "doc_key")
# Common keys without labels; any other list or object could be labels under an unknown key.
_OTHER_KEYS = {
    *("meta", "metadata", "info", "comments", "Comments", "cats", "options", "word", "ner_negatives"),
    *("relations", "relation_mentions", "events", "event_mentions", "clusters"),
    *("pos", "pos_tags", "upos", "xpos", "lemma", "lemmas", "head", "heads", "deps", "deprel"),
    *("chunk", "chunks", "chunk_tags"),
}


@dataclass(frozen=True)
class RecordReader:
    """Converts records to examples.

    Args:
        reading: how records are read; Label Studio tasks without annotation are left out of a labelled file.
        all_records: iterates over the records of the file again, to detect the dialect of its tags.
    """

    reading: Reading
    all_records: Callable[[], Iterable[Any]] = tuple

    @property
    def _tag_keys(self) -> tuple[str, ...]:
        """Keys of the tags: ``chunk`` or ``chunk_tags`` if ``tag_column`` is ``chunk``."""
        asked = self.reading.tag_column
        return TAG_KEYS if asked == "last" else (asked, f"{asked}_tags")

    @property
    def expected(self) -> str:
        """The expected keys, for messages."""
        asked = "/".join(self._tag_keys)
        return f"tokens and {asked} (--tag_column), tokens and entity_mentions, or text and spans"

    def read(self, record: dict[str, Any], source: Source) -> list[Example]:
        """Convert a record to one example, one per sentence of a document, or none for a rejected text.

        Raises:
            DataError: the record cannot be read; faults of single annotations are added to the findings.
        """
        findings = self.reading.findings
        if record.get("answer") in ("reject", "ignore"):
            findings.add(f"texts with the answer {record['answer']!r}, left out")
            return []
        if label_studio.is_task(record):
            text, spans = label_studio.read_task(record, source, findings)
            words = record["data"].get("tokens")
            given = bool(words) and isinstance(words, list) and all(isinstance(word, dict) for word in words)
            offsets = _offsets_of_tokens(words, text, source) if given else None
            data = record["data"]
            example = self.reading.example(text, spans, source, offsets, regions_of(data, source))
            example.document, example.complete = _document_of(data), complete_types_of(data, source)
            if example.entities is None and self.reading.labelled:
                findings.add("tasks without an annotation, left out")
                return []
            return [example]
        if label_studio.is_min_record(record):
            return [self.reading.example(*label_studio.read_min_record(record, source, findings), source)]
        record = {key: value if key in TEXT_KEYS else self._unquoted(value) for key, value in record.items()}
        examples, label_key = self._examples(record, source)
        for example in examples:
            example.document = example.document or _document_of(record)
            example.complete = complete_types_of(record, source)
        used = {label_key, "sentences", *WORD_KEYS, *TEXT_KEYS, *PARTIAL_KEYS}
        unused = [key for key, value in record.items() if key not in used and isinstance(value, list | dict) and value]
        if any(example.entities is None for example in examples):
            if self.reading.labelled:
                raise source.error(f"no labels (keys: {', '.join(record)}); expected {self.expected}")
            if unknown := ", ".join(key for key in unused if key not in _OTHER_KEYS):
                message = f"no labels under a known key, but {unknown} could be labels; expected {self.expected}"
                raise source.error(f"{message}, or an unlabelled text without {unknown}")
        for key in unused:
            if not (key == "entities" and any(example.confidences for example in examples)):
                findings.add(f"records with {key!r}, which is not used")
        return examples

    def _unquoted(self, value: Any) -> Any:
        """Parse a list or object that is stored as a string, as in CSV files, in JSON or Python notation."""
        if not isinstance(value, str) or not value.startswith(("[", "{")):
            return value
        try:
            found = json.loads(value)
        except ValueError:
            try:
                found = ast.literal_eval(value)
                if repr(found) != value:  # "['a' 'b']", as NumPy prints it, would be read as one string
                    return value
                found = json.loads(json.dumps(found))  # tuples become lists
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                return value
        self.reading.findings.add("lists and objects written as strings, parsed")
        return found

    def _examples(self, record: dict[str, Any], source: Source) -> tuple[list[Example], str]:
        """Return the examples and the key of their labels, empty if they have none."""
        if isinstance(record.get("sentences"), list):
            return self._sentences(record, source)
        text_key = next((key for key in TEXT_KEYS if isinstance(record.get(key), str)), "")
        words_key = next((key for key in WORD_KEYS if isinstance(record.get(key), list)), "")
        text: Any = record.get(text_key)
        words: Any = record.get(words_key)
        offsets = None
        if words_key and not (words and all(isinstance(word, dict) for word in words)):
            words = _strings(words, words_key, source)
            others = (*_WORD_SPAN_KEYS, *_SPAN_KEYS) if self.reading.tag_column == "last" else ()
            key = _chosen(record, (*self._tag_keys, *others))
            if text is None or key not in _SPAN_KEYS or not _are_spans(record[key], key) or _count_words(record[key]):
                return [self._words(words, text, record, key, source)], key
            offsets = find_words(words, text)
            if offsets and _may_count_words(spans_of(record[key], text, source, Findings()), offsets):
                advice = "name them entity_mentions if they count words, or leave the tokens out"
                raise source.error(f"{key} do not begin and end with tokens in the text; {advice}")
        elif words_key and text is not None:
            offsets = _offsets_of_tokens(words, text, source)
        if text is None:
            wrong = next((f"{key} is not a list of strings" for key in WORD_KEYS[:3] if key in record), "")
            raise source.error(wrong or f"expected a key tokens or text, found {', '.join(record) or 'none'}")
        key = _chosen(record, _SPAN_KEYS)
        spans = spans_of(record[key], text, source, self.reading.findings) if key else None
        return [self.reading.example(text, spans, source, offsets, regions_of(record, source))], key

    def _words(self, words: list[str], text: str | None, record: dict[str, Any], key: str, source: Source) -> Example:
        """Make an example of words with tags, with spans, or without annotation."""
        if key and _are_spans(record[key], key):
            spans = spans_of(record[key], words, source, self.reading.findings, last_included=key in _WORD_SPAN_KEYS)
            example = self.reading.example_of_words(words, spans, source, text, regions_of(record, source))
        else:
            example = self.reading.example_of_words(words, None, source, text)
            tags = self._tags(record[key], len(words), key, source) if key else None
            if tags is not None:
                self.reading.tags.annotate(example, [tags], [source.line])
                self.reading.mark_regions(example, regions_of(record, source), source)
        example.confidences = _confidences(record, example.entities)
        return example

    def _sentences(self, record: dict[str, Any], source: Source) -> tuple[list[Example], str]:
        """Make one example per sentence of a document in the format of DyGIE."""
        sentences = record["sentences"]
        key = _chosen(record, _WORD_SPAN_KEYS[1:])
        annotations = record[key] if key else [None] * len(sentences)
        if not isinstance(annotations, list) or len(annotations) != len(sentences):
            raise source.error(f"{key} is not a list with an entry for each of the {len(sentences)} sentences")
        words = [_strings(sentence, "a sentence", source) for sentence in sentences]
        in_document = list(chain.from_iterable(words))
        examples, first = [], 0
        for number, (sentence, annotation) in enumerate(zip(words, annotations, strict=True)):
            place = replace(source, guid=f"{record.get('doc_key', source.guid)}-{number}")
            spans = None
            if annotation is not None:
                units = in_document if key == "ner" else sentence
                found = spans_of(annotation, units, place, self.reading.findings, last_included=True)
                spans = [span._replace(start=span.start - first, end=span.end - first) for span in found]
            examples.append(self.reading.example_of_words(sentence, spans, place))
            examples[-1].document = source.guid
            first += len(sentence) if key == "ner" else 0
        return examples, key

    def _tags(self, tags: Any, words: int, key: str, source: Source) -> list[str] | None:
        """One tag per word; ``None`` if all tags are missing (null or class -1)."""
        if not isinstance(tags, list):
            raise source.error(f"{key} is not a list of strings")
        if tags and all(tag is None or tag == -1 for tag in tags):
            return None
        if len(tags) != words:
            raise source.error(f"{words} tokens but {len(tags)} {key}")
        names = [self._named(tag, key, source) for tag in tags]
        if self.reading.tags.plain or all(name == UNKNOWN or is_tag(name) for name in names):
            return names
        usual, description = self._dialect
        if not usual:
            advice = "set --tag_column to the key of the tags; run_pl_ner.py trains on parts of speech"
            raise source.error(f"{description}; {advice}")
        self.reading.findings.add(description, count=sum(usual[name] != name for name in names))
        return [usual[name] for name in names]

    @cached_property
    def _dialect(self) -> tuple[dict[str, str], str]:
        """Canonical form of all tags of the file and a description; empty with the reason if they are not tags."""
        silent = replace(self, reading=Reading())  # findings are counted when the records are read
        tags = {*self.reading.class_names}
        for record in self.all_records():
            values = silent._unquoted(record.get(_chosen(record, self._tag_keys))) if isinstance(record, dict) else None
            tags |= {value for value in values if isinstance(value, str)} if isinstance(values, list) else set()
        try:
            dialect = canonical_tags(tags - {UNKNOWN})
        except UnknownTagsError as error:
            return {}, str(error)
        return dialect.tags | {UNKNOWN: UNKNOWN}, dialect.description

    def _named(self, tag: Any, key: str, source: Source) -> str:
        if isinstance(tag, str):
            return tag
        if isinstance(tag, bool) or not isinstance(tag, int):
            raise source.error(f"{key} is not a list of strings: {tag!r} is among them")
        if not self.reading.class_names:
            advice = "name them in their order with --labels FILE, one tag per line, or write names into the data"
            raise source.error(f"{key} holds numbers of classes without their names; {advice}")
        if not 0 <= tag < len(self.reading.class_names):
            raise source.error(f"class {tag} of {key} is not one of the {len(self.reading.class_names)} in --labels")
        return self.reading.class_names[tag]


def _document_of(record: dict[str, Any]) -> str:
    """Name of the document that the text of a record belongs to; empty if it has none."""
    return str(next((record[key] for key in DOCUMENT_KEYS if isinstance(record.get(key), str | int)), ""))


def _chosen(record: dict[str, Any], keys: Sequence[str]) -> str:
    """The first key with a non-empty value, else the first that exists, else the empty string."""
    there = [key for key in keys if record.get(key) is not None]
    return next((key for key in there if record[key]), there[0] if there else "")


def _are_spans(value: Any, key: str) -> bool:
    """Whether labels of words are spans; otherwise they are tags."""
    if isinstance(value, list):
        return any(isinstance(one, list | dict) for one in value) or (not value and key not in TAG_KEYS)
    return isinstance(value, dict)


def _count_words(annotations: Any) -> bool:
    """Whether annotations give word indices, as in prediction files, and not only characters."""
    return isinstance(annotations, list) and all(isinstance(one, dict) and "first_word" in one for one in annotations)


def _strings(words: list[Any], key: str, source: Source) -> list[str]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise source.error(f"{key} is not a list of strings")
    return words


def _offsets_of_tokens(tokens: list[dict[str, Any]], text: str, source: Source) -> list[tuple[int, int]]:
    """Character offsets of words given as objects, as by Prodigy and spaCy."""
    offsets: list[tuple[int, int]] = []
    for token in tokens:
        try:
            start, end = place_of(token["start"]), place_of(token["end"])
        except (KeyError, TypeError, ValueError) as error:
            raise source.error(f"cannot read the token {token!r}; expected start and end in characters") from error
        if not (offsets[-1][1] if offsets else 0) <= start < end <= len(text):
            raise source.error(f"the token {token!r} is empty, overlaps another, or lies outside the text")
        if token.get("text", text[start:end]) != text[start:end]:
            raise source.error(f"the token {token!r} does not match the text there")
        offsets.append((start, end))
    return offsets


def _may_count_words(spans: Sequence[Span], offsets: Sequence[tuple[int, int]]) -> bool:
    """Whether spans do not match the words as character offsets, but would as word indices."""
    starts, ends = {start for start, _ in offsets}, {end for _, end in offsets}
    fits = all(span.start in starts and span.end in ends for span in spans)
    return not fits and all(span.end <= len(offsets) for span in spans)


def _confidences(record: dict[str, Any], entities: Sequence[Entity] | None) -> list[float] | None:
    """Confidences from a prediction file; its version 1 has word indices as ``start`` and ``end`` (exclusive)."""
    found = {}
    try:
        for one in record["entities"]:
            words = (one["first_word"], one["last_word"]) if "first_word" in one else (one["start"], one["end"] - 1)
            found[one["type"], *words] = float(one["confidence"])
    except (KeyError, TypeError, ValueError):  # entities of another kind
        return None
    return [found[entity] for entity in entities] if entities is not None and found.keys() == set(entities) else None
