"""Compare the predictor with the token-classification pipeline of transformers: same checkpoint, texts, entities.

python -m benchmarks.predict --model outputs/conll2003_softmax --texts /data/conll2003/iob2/valid.txt
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, pipeline
from transformers.utils import logging

from inference.predictor import NerPredictor
from processors.formats.columns import read_columns
from processors.spans import Reading

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_PIPELINE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LONGEST = 500  # tokens per long text; beyond a window the pipeline would need strides
Entities = set[tuple[str, int, int]]
Call = Callable[[list[str]], list[Entities]]


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
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts = list(mixed_texts(args.texts, args.sentences, args.documents, tokenizer))
    random.Random(0).shuffle(texts)
    calls = {}
    for dtype in _PIPELINE_DTYPES:
        batch_size, calls[f"pipeline {dtype}"] = best_pipeline(args.model, dtype, args.device, texts)
        print(f"pipeline {dtype}: fastest with batch size {batch_size}", flush=True)
    for dtype in ("fp32", "bf16", "int8") if args.device == "cpu" else ("fp32", "bf16"):
        calls[f"ours {dtype}"] = predictor_call(NerPredictor.load(args.model, args.device, dtype))
    found = {name: call(texts) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            seconds[name].append(timed(call, texts))
    report(texts, found, seconds)


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


def best_pipeline(model: str, dtype: str, device: str, texts: list[str]) -> tuple[int, Call]:
    """The pipeline with its fastest batch size, found on some of the texts."""
    pipe = pipeline(
        "token-classification", model, dtype=_PIPELINE_DTYPES[dtype], device=device, aggregation_strategy="first"
    )
    some = texts[: max(_BATCH_SIZES) * 4]
    pipeline_call(pipe, 8)(some[:64])
    seconds = {size: timed(pipeline_call(pipe, size), some) for size in _BATCH_SIZES}
    best = min(seconds, key=lambda size: seconds[size])
    return best, pipeline_call(pipe, best)


def pipeline_call(pipe: Any, batch_size: int) -> Call:
    def call(texts: list[str]) -> list[Entities]:
        found = pipe(texts, batch_size=batch_size)
        return [{(group["entity_group"], group["start"], group["end"]) for group in groups} for groups in found]

    return call


def predictor_call(predictor: NerPredictor) -> Call:
    def call(texts: list[str]) -> list[Entities]:
        return [{(entity.type, entity.start, entity.end) for entity in found} for found in predictor(texts)]

    return call


def timed(call: Call, texts: list[str]) -> float:
    start = time.perf_counter()
    call(texts)  # returns Python objects, so a GPU has finished
    return time.perf_counter() - start


def report(texts: list[str], found: dict[str, list[Entities]], seconds: dict[str, list[float]]) -> None:
    """Speeds, ratios to the float32 pipeline, and the number of texts whose entities differ from the pipeline's."""
    reference, base = found["pipeline fp32"], statistics.median(seconds["pipeline fp32"])
    entities = sum(map(len, reference))
    print(
        f"{len(texts)} texts, {sum(map(len, texts))} characters, {entities} entities, {torch.get_num_threads()} threads"
    )
    print("| | texts/s | ratio to pipeline | texts with other entities |\n|---|---|---|---|")
    for name, times in seconds.items():
        median = statistics.median(times)
        other = sum(left != right for left, right in zip(found[name], reference, strict=True))
        print(f"| {name} | {len(texts) / median:.0f} | {base / median:.2f} | {other} |")


if __name__ == "__main__":
    main()
