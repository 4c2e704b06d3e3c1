"""Reading, features, cache and batches of corpora of several sizes: time per word, memory, and start of a training.

python -m benchmarks.data --sentences 10000 100000 1000000

The peer is ``Dataset.map`` of the datasets library with the tokenizer, as in the example ``run_ner.py`` of
transformers. Both use all cores. Corpora are the bundled sample, repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer, BatchEncoding

from analysis.compare_runs import Sheet, as_markdown
from benchmarks.train_peers import labels_at_first_pieces
from common.memory import memory_mib
from common.tag_schemes import MARKUPS, TagEncoder, entities_to_tags, tag_set
from processors.corpus import Corpus
from processors.features.batching import BucketBatchSampler, StepFeed
from processors.features.build import FeatureSpec
from processors.features.cache import open_or_build_features
from processors.features.dataset import FeatureDataset
from processors.features.windows import layout_of_tokenizer
from processors.formats.columns import read_columns
from processors.spans import Reading

_SAMPLE = Path(__file__).parent.parent / "datasets" / "sample"
_WINDOW = 128
_BATCH = 32
_STEPS = 300
_COLUMNS = [
    *("sentences", "words", "reading, µs/word", "features, µs/word", "datasets.map, µs/word", "cache, MiB"),
    *("opening, s", "memory to open, MiB", "first batch, s", "batches, µs/word"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sentences", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="corpus sizes")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        print(json.dumps(opening(args.open)))
        return
    print(f"{os.cpu_count()} cores, {_STEPS} batches of {_BATCH} sentences\n")
    rows = []
    for sentences in args.sentences:
        with TemporaryDirectory() as folder:
            write_corpus(Path(folder) / "train.txt", sentences)
            found = reading(Path(folder)) | building(Path(folder)) | peer(Path(folder)) | opening_in_new_process(folder)
        per_word = [f"{1e6 * found[stage] / found['words']:.2f}" for stage in ("read", "build", "peer")]
        rows.append(
            [
                *(f"{sentences:,}", f"{found['words']:,.0f}", *per_word, f"{found['disk']:,.0f}"),
                *(f"{found['open']:.2f}", f"{found['resident']:,.0f}", f"{found['first']:.2f}"),
                f"{1e6 * found['batches'] / found['words_in_batches']:.2f}",
            ]
        )
    print(as_markdown(Sheet("", 0, _COLUMNS, rows)))


def opening_in_new_process(folder: str) -> dict[str, float]:
    """As a training that finds the features in the cache: nothing is in memory."""
    command = [sys.executable, "-m", "benchmarks.data", "--open", folder]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


def write_corpus(path: Path, sentences: int) -> None:
    sample = (_SAMPLE / "train.txt").read_text("utf-8").strip().split("\n\n")
    with path.open("w", encoding="utf-8") as file:
        for sentence in islice(cycle(sample), sentences):
            file.write(sentence + "\n\n")


def reading(folder: Path) -> dict[str, float]:
    start = time.perf_counter()
    words = sum(len(example.words) for example in read_columns(folder / "train.txt", Reading()))
    return {"words": words, "read": time.perf_counter() - start}


def building(folder: Path) -> dict[str, float]:
    """Read the file, build its features and write them to the cache."""
    start = time.perf_counter()
    opened(folder)
    return {"build": time.perf_counter() - start}


def peer(folder: Path) -> dict[str, float]:
    """Tokenize and align labels with the datasets library; reading the file is timed as well."""
    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(_SAMPLE / "encoder")

    def features(rows: dict[str, list[Any]]) -> BatchEncoding:
        inputs: BatchEncoding = tokenizer(rows["words"], is_split_into_words=True, truncation=True, max_length=_WINDOW)
        rows_of_words = map(inputs.word_ids, range(len(rows["tags"])))
        inputs["labels"] = list(map(labels_at_first_pieces, rows_of_words, rows["tags"]))
        return inputs

    start = time.perf_counter()
    examples = list(read_columns(folder / "train.txt", Reading()))
    names = tag_set(sorted({entity.type for one in examples for entity in one.entities or ()}), MARKUPS["bio"])
    ids = {name: number for number, name in enumerate(names)}
    tags = [entities_to_tags(one.entities or (), len(one.words), MARKUPS["bio"]) for one in examples]
    rows = Dataset.from_dict(
        {"words": [list(one.words) for one in examples], "tags": [[ids[tag] for tag in of_one] for of_one in tags]}
    )
    rows.map(features, batched=True, num_proc=os.cpu_count(), cache_file_name=str(folder / "peer.arrow"))
    return {"peer": time.perf_counter() - start}


def opening(folder: Path) -> dict[str, float]:
    """Open the cache, and make batches as a training does."""
    AutoTokenizer.from_pretrained(_SAMPLE / "encoder")
    before, start = memory_mib([os.getpid()], "VmRSS"), time.perf_counter()
    dataset = opened(folder)
    found = {"open": time.perf_counter() - start, "resident": memory_mib([os.getpid()], "VmRSS") - before}
    found["disk"] = sum(path.stat().st_size for path in (folder / "cache").rglob("*.bin")) / 2**20
    start = time.perf_counter()
    sampler = BucketBatchSampler(dataset.lengths, batch_size=_BATCH)
    steps = StepFeed(dataset, sampler).steps(_STEPS)
    next(steps)
    found["first"] = time.perf_counter() - start
    start = time.perf_counter()
    found["words_in_batches"] = float(sum(dataset.word_counts[step.windows].sum() for step in steps))
    return found | {"batches": time.perf_counter() - start}


def opened(folder: Path) -> FeatureDataset:
    tokenizer = AutoTokenizer.from_pretrained(_SAMPLE / "encoder")
    corpus = Corpus("benchmark", folder, cache_dir=folder / "cache")
    spec = FeatureSpec(_WINDOW, 31, layout_of_tokenizer(tokenizer))
    encode = TagEncoder(corpus.label_list("bio"), MARKUPS["bio"])
    return open_or_build_features(corpus, "train", spec, tokenizer, folder / "cache", encode)


if __name__ == "__main__":
    main()
