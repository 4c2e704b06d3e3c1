"""Feature cache on disk: built once on all cores, keyed by a hash of its inputs, opened as memory maps."""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from common.durable import atomic_write
from processors.corpus import Corpus
from processors.examples import Example
from processors.features.alignment import vocabulary_of
from processors.features.build import FeatureSpec, build_feature_arrays
from processors.features.dataset import Encode, FeatureArrays, FeatureCollector, FeatureDataset

_FORMAT_VERSION = 7
_CHUNK = 2000
_How = tuple[FeatureSpec, PreTrainedTokenizerBase, list[str]]  # arguments of `build_feature_arrays`
_SENTENCES_WORTH_A_POOL = 30_000  # worker processes take seconds to import torch and transformers


def open_or_build_features(
    corpus: Corpus,
    split: str,
    spec: FeatureSpec,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    encode: Encode | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> FeatureDataset:
    """Open the cached features of one split, or build them.

    They are independent of the head and its labels: ``encode`` makes the labels of each batch. Concurrent processes and
    crashes are safe: a cache entry is a folder that is renamed when it is complete.

    Raises:
        DataError: the split is missing or malformed.
        RuntimeError: the features do not match the split.
    """
    parts = {"format": _FORMAT_VERSION, "content": corpus.digest(split), "spec": asdict(spec)}
    parts["tokenizer"] = tokenizer_digest(tokenizer)
    key = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()
    folder = cache_dir / f"{split}-{key}"
    if overwrite:
        corpus.parse_again(split)
    inventory = corpus.inventory(split)
    types = sorted(inventory.types)
    if overwrite or not folder.is_dir():
        hidden = None if show_progress else True  # None hides the bar if there is no terminal
        with (
            atomic_write(folder, "replace" if overwrite else "keep") as fresh,  # another process may be faster
            tqdm(total=inventory.sentences, desc=f"Features of {split}", unit=" sentences", disable=hidden) as bar,
        ):
            fresh.mkdir()
            FeatureCollector().concatenated().append_to(fresh)  # an empty split still has all files
            chunks = _chunks(corpus.examples(split))
            for size, arrays in _features_of_chunks(chunks, (spec, tokenizer, types), inventory.sentences):
                arrays.append_to(fresh)
                bar.update(size)
    dataset = FeatureDataset(FeatureArrays.mapped(folder), spec.layout, types, encode)
    owned, entities = int(dataset.word_counts.sum()), len(dataset.arrays["entities"])
    found = (dataset.num_documents, dataset.num_words, owned, entities)
    if found != (inventory.sentences, inventory.words, inventory.words, inventory.entities):
        raise RuntimeError(
            f"{inventory.source} has {inventory.words} words and {inventory.entities} entities in "
            f"{inventory.sentences} sentences, its features in {folder} have {owned} and {entities} in "
            f"{dataset.num_documents}; run again with --overwrite_cache, and report it"
        )
    return dataset


def _chunks(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """Chunks of about ``_CHUNK`` examples, which do not divide a document: its sentences are context of each other."""
    chunk: list[Example] = []
    for example in examples:
        if len(chunk) >= _CHUNK and not (example.document and example.document == chunk[-1].document):
            yield chunk
            chunk = []
        chunk.append(example)
    if chunk:
        yield chunk


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of how the tokenizer splits words, independent of its padding and truncation state and of its path."""
    if tokenizer.is_fast:
        described = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    else:
        paths = ("file", "path")
        options = {key: repr(value) for key, value in tokenizer.init_kwargs.items() if not key.endswith(paths)}
        described = {"vocabulary": vocabulary_of(tokenizer), "options": options}
    text = type(tokenizer).__name__ + json.dumps(described, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _features_of_chunks(
    chunks: Iterator[list[Example]], how: _How, sentences: int
) -> Iterator[tuple[int, FeatureArrays]]:
    """Yield the size and features of each chunk, in order; large corpora are processed on all cores."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if sentences < _SENTENCES_WORTH_A_POOL or workers == 1:
        for chunk in chunks:
            yield len(chunk), build_feature_arrays(chunk, *how)
        return
    context = multiprocessing.get_context("spawn")  # forking a process with threads of torch and the tokenizer can hang
    try:
        with ProcessPoolExecutor(workers, context, _prepare_worker, (how,)) as pool:
            pending: list[tuple[int, Future[FeatureArrays]]] = []
            for chunk in chunks:
                pending.append((len(chunk), pool.submit(_worker_features, chunk)))
                if len(pending) > 2 * workers:  # limits how much is read ahead
                    size, future = pending.pop(0)
                    yield size, future.result()
            for size, future in pending:
                yield size, future.result()
    except BrokenProcessPool as error:
        advice = "call your script's code under `if __name__ == '__main__':`, because worker processes import it"
        raise RuntimeError(f"a process that builds features died; {advice}") from error


_worker_state: _How | None = None


def _prepare_worker(how: _How) -> None:
    global _worker_state
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker_state = how


def _worker_features(chunk: list[Example]) -> FeatureArrays:
    assert _worker_state is not None
    return build_feature_arrays(chunk, *_worker_state)
