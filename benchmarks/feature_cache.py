"""Build the feature cache of a large corpus, and open it again in a new process.

python -m benchmarks.feature_cache --sentences 1000000
"""

import argparse
import os
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoTokenizer

from processors.corpus import Corpus
from processors.features.build import FeatureSpec
from processors.features.cache import open_or_build_features
from processors.features.dataset import FeatureDataset
from processors.features.windows import layout_of_tokenizer

_SAMPLE = Path(__file__).parent.parent / "datasets" / "sample"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--sentences", type=int, default=1_000_000, help="sentences of the corpus: the sample, repeated"
    )
    parser.add_argument("--folder", type=Path, help="working folder; default: a temporary folder")
    parser.add_argument(
        "--open_only", action="store_true", help="only open the cache that an earlier call built in --folder"
    )
    args = parser.parse_args()
    if args.open_only:
        if args.folder is None:
            parser.error("--open_only opens what an earlier call left in --folder; name it")
        _measure_opening(args.folder)
        return
    with TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _write_corpus(folder / "train.txt", args.sentences)
        start = time.perf_counter()
        dataset = _open(folder)
        seconds = time.perf_counter() - start
        counts = f"{dataset.num_documents} sentences, {dataset.num_words} words"
        print(f"built: {counts} in {seconds:.1f} s on {os.cpu_count()} cores")
        command = [sys.executable, "-m", "benchmarks.feature_cache", "--open_only", "--folder", str(folder)]
        subprocess.run(command, check=True)


def _write_corpus(path: Path, sentences: int) -> None:
    sample = (_SAMPLE / "train.txt").read_text("utf-8").strip().split("\n\n")
    with path.open("w", encoding="utf-8") as file:
        for sentence in islice(cycle(sample), sentences):
            file.write(sentence + "\n\n")


def _open(folder: Path) -> FeatureDataset:
    tokenizer = AutoTokenizer.from_pretrained(_SAMPLE / "encoder")
    corpus = Corpus("benchmark", folder, cache_dir=folder / "cache")
    layout = layout_of_tokenizer(tokenizer)
    spec = FeatureSpec(128, 31, layout)
    return open_or_build_features(corpus, "train", spec, tokenizer, folder / "cache")


def _measure_opening(folder: Path) -> None:
    AutoTokenizer.from_pretrained(_SAMPLE / "encoder")
    before, start = _resident_mib(), time.perf_counter()
    dataset = _open(folder)
    seconds, grown = time.perf_counter() - start, _resident_mib() - before
    size = sum(path.stat().st_size for path in (folder / "cache").rglob("*.bin")) / 2**20
    print(f"opened: {len(dataset)} windows of {size:.0f} MiB in {seconds:.2f} s, {grown:.0f} MiB more resident memory")


def _resident_mib() -> float:
    """Resident memory of this process (Linux)."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
