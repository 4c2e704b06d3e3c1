"""Compare prediction from raw text to entities: ours, ONNX Runtime, the pipeline of transformers, Flair and spaCy.

python -m benchmarks.predict --model outputs/conll2003_softmax --texts /data/conll2003/iob2/valid.txt

All use the encoder of the same softmax run. Flair and spaCy run in environments of their own, see
`benchmarks.other_libraries`; their heads are not trained, so only their speed is compared.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerBase, pipeline
from transformers.utils import logging

from common.tag_schemes import OUTSIDE, tags_to_entities
from inference.export_onnx import write_onnx
from inference.predictor import NerPredictor
from models.heads.flat import FlatTagger
from processors.formats.columns import read_columns
from processors.spans import Reading

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_PIPELINE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LONGEST = 500  # tokens per long text; beyond a window the pipeline would need strides
_WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")
_REFERENCE = "pipeline fp32"
Entities = set[tuple[str, int, int]]
Call = Callable[[list[str]], list[Entities]]
Timed = Callable[[], float]  # predicts all texts, and returns the seconds it took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True, help="folder of a softmax run with --markup bio")
    parser.add_argument("--texts", required=True, type=Path, help="a corpus in columns")
    parser.add_argument("--sentences", type=int, default=1000, help="sentences to use as short texts")
    parser.add_argument("--documents", type=int, default=20, help="long texts to make of the sentences after these")
    parser.add_argument(
        "--rounds", type=int, default=5, help="measurements of each, taken in turn; the median is shown"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, ...")
    parser.add_argument("--flair_python", help="Python of an environment with Flair")
    parser.add_argument("--spacy_python", help="Python of an environment with spacy-transformers")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts = list(mixed_texts(args.texts, args.sentences, args.documents, tokenizer))
    random.Random(0).shuffle(texts)
    with ExitStack() as opened:
        found: dict[str, list[Entities]] = {}
        entrants: dict[str, Timed] = {}
        sizes: dict[str, int] = {}
        for name, size, call in chain(peers(args.model, args.device, texts), ours(args.model, args.device)):
            found[name], entrants[name] = call(texts), partial(seconds_of, call, texts)
            sizes[name] = size
        tags = AutoConfig.from_pretrained(args.model).id2label.values()
        types = sorted({tag[2:] for tag in tags if tag != OUTSIDE})
        for library, python in (("flair", args.flair_python), ("spacy", args.spacy_python)):
            if python:
                given = (library, args.model, args.device)
                sizes[library], entrants[library] = opened.enter_context(other_library(python, given, texts, types))
        seconds: dict[str, list[float]] = {name: [] for name in entrants}
        for _ in range(args.rounds):
            for name, timed in entrants.items():
                seconds[name].append(timed())
    print("Texts per batch, the fastest of each:", ", ".join(f"{name} {size}" for name, size in sizes.items() if size))
    report(texts, found, seconds)


def peers(model: str, device: str, texts: list[str]) -> Iterator[tuple[str, int, Call]]:
    """What transformers offers, each with its fastest batch size."""
    for dtype in _PIPELINE_DTYPES:
        pipe = pipeline(
            "token-classification", model, dtype=_PIPELINE_DTYPES[dtype], device=device, aggregation_strategy="first"
        )
        yield f"pipeline {dtype}", *fastest(partial(pipeline_call, pipe), texts)
    yield "batches fp32", *fastest(batched_call(model, device), texts)


def ours(model: str, device: str) -> Iterator[tuple[str, int, Call]]:
    """The predictor, which forms batches by tokens."""
    for dtype in ("fp32", "bf16", "int8") if device == "cpu" else ("fp32", "bf16"):
        yield f"ours {dtype}", 0, predictor_call(NerPredictor.load(model, device, dtype))
    if device == "cpu":
        with TemporaryDirectory() as folder:
            exported = NerPredictor.load(model, device)
            write_onnx(cast(FlatTagger, exported.model), Path(folder, "model.onnx"))
            exported.tokenizer.save_pretrained(folder)
            yield "ours onnx", 0, predictor_call(NerPredictor.load(folder, device))


@contextmanager
def other_library(
    python: str, given: tuple[str, ...], texts: list[str], types: list[str]
) -> Iterator[tuple[int, Timed]]:
    """A process of `benchmarks.other_libraries`: its fastest batch size, and what makes it predict."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "texts.json")
        file.write_text(json.dumps({"texts": texts, "types": types}), "utf-8")
        command = [python, "-m", "benchmarks.other_libraries", "predict", *given, str(file)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            requests, answers = process.stdin, process.stdout

            def timed() -> float:
                requests.write("\n")
                requests.flush()
                return float(answers.readline())

            if not (size := answers.readline().strip()):
                raise ValueError(f"{given[0]} ended with an error, see above; is it installed for {python}?")
            yield int(size), timed


def mixed_texts(path: Path, sentences: int, documents: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Sentences, and long texts that nearly fill a window."""
    corpus = (" ".join(example.words) for example in read_columns(path, Reading()))
    for _, sentence in zip(range(sentences), corpus, strict=False):
        yield sentence
    for _ in range(documents):
        parts: list[str] = []
        tokens = 0
        for sentence in corpus:
            parts.append(sentence)
            tokens += len(tokenizer.tokenize(sentence))
            if tokens > _LONGEST - 120:
                break
        yield " ".join(parts)


def fastest(call_of: Callable[[int], Call], texts: list[str]) -> tuple[int, Call]:
    """The fastest batch size, found on some of the texts, and the call with it."""
    some = texts[: max(_BATCH_SIZES) * 4]
    call_of(8)(some[:64])
    seconds = {size: seconds_of(call_of(size), some) for size in _BATCH_SIZES}
    best = min(seconds, key=lambda size: seconds[size])
    return best, call_of(best)


def pipeline_call(pipe: Any, batch_size: int) -> Call:
    def call(texts: list[str]) -> list[Entities]:
        found = pipe(texts, batch_size=batch_size)
        return [{(group["entity_group"], group["start"], group["end"]) for group in groups} for groups in found]

    return call


def batched_call(model: str, device: str) -> Callable[[int], Call]:
    """Words cut by a regular expression, texts padded in batches in the given order, as GLiNER does."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForTokenClassification.from_pretrained(model).to(device).eval()
    names = classifier.config.id2label

    def entities(words: list[re.Match[str]], pieces: list[int | None], tags: list[int]) -> Entities:
        tag_of = dict(reversed(list(zip(pieces, tags, strict=True))))  # that of the first piece
        found = tags_to_entities(
            [names[tag_of[number]] if number in tag_of else OUTSIDE for number in range(len(words))]
        )
        return {(one.type, words[one.first_word].start(), words[one.last_word].end()) for one in found}

    @torch.inference_mode()
    def predict(texts: list[str], size: int) -> Iterator[Entities]:
        for start in range(0, len(texts), size):
            words = [list(_WORD.finditer(text)) for text in texts[start : start + size]]
            rows = [[word[0] for word in of_text] for of_text in words]
            inputs = tokenizer(rows, is_split_into_words=True, padding=True, truncation=True, return_tensors="pt")
            tags = classifier(**inputs.to(device)).logits.argmax(-1).tolist()
            yield from (entities(of_text, inputs.word_ids(row), tags[row]) for row, of_text in enumerate(words))

    return lambda size: lambda texts: list(predict(texts, size))


def predictor_call(predictor: NerPredictor) -> Call:
    def call(texts: list[str]) -> list[Entities]:
        return [{(entity.type, entity.start, entity.end) for entity in found} for found in predictor(texts)]

    return call


def seconds_of(call: Call, texts: list[str]) -> float:
    start = time.perf_counter()
    call(texts)  # returns Python objects, so a GPU has finished
    return time.perf_counter() - start


def report(texts: list[str], found: Mapping[str, list[Entities]], seconds: Mapping[str, list[float]]) -> None:
    """Speeds, median of the ratios to the float32 pipeline, and the number of texts whose entities differ from its."""
    reference = found[_REFERENCE]
    counts = f"{sum(map(len, texts))} characters, {sum(map(len, reference))} entities"
    print(f"{len(texts)} texts, {counts}, {torch.get_num_threads()} threads\n")
    print("| | texts/s | ratio to pipeline | texts with other entities |\n|---|---:|---:|---:|")
    for name, times in seconds.items():
        ratio = statistics.median(base / own for base, own in zip(seconds[_REFERENCE], times, strict=True))
        other = sum(left != right for left, right in zip(found[name], reference, strict=True)) if name in found else ""
        print(f"| {name} | {len(texts) / statistics.median(times):.0f} | {ratio:.2f} | {other} |")


if __name__ == "__main__":
    main()
