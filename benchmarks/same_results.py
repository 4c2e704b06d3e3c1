"""Train the bundled sample in two commits and compare losses, weights, scores and predictions bit for bit.

A refactoring must not change results. This tool checks out both commits, runs the same commands in each, and lists
every difference; it exits with status 1 if there is one.

python -m benchmarks.same_results HEAD~1 HEAD
python -m benchmarks.same_results main my-branch --runs crf two_processes --steps 20
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from analysis.report.run_data import read_scalars

ROOT = Path(__file__).resolve().parent.parent
# What depends on the clock, the machine or the folder, by the last part of its name.
_UNCOMPARED = {"seconds", "words_per_second", "examples_per_second", "memory_gib", "utilisation"}
_LISTED = 20
_SENTENCES = {"train": 400, "dev": 100, "test": 100}
_ENCODER = ("--model_name_or_path=datasets/sample/encoder", "--from_scratch", "--learning_rate=1e-3")
_NER = (
    *("--task_name=sample", "--data_dir=outputs/sample", *_ENCODER, "--do_train", "--do_eval", "--do_predict"),
    *("--per_gpu_train_batch_size=8", "--per_gpu_eval_batch_size=64", "--log_loss_steps=1", "--no_cuda"),
    *("--max_steps=STEPS", "--logging_steps=HALF"),
)
_LIGHTNING = (
    *("--num_train_epochs=1", "--train_batch_size=8", "--eval_batch_size=64", "--do_train", "--do_predict"),
    *("--max_seq_length=128", "--weight_decay=0", "--warmup_proportion=0", "--metric_for_best_model=loss"),
    "--log_every_n_steps=1",
)
_LIGHTNING_NER = ("run_pl_ner.py", "--data_dir=outputs/sample", "--labels=outputs/labels.txt", *_ENCODER, *_LIGHTNING)
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
# The command of each run; STEPS and HALF are filled in. A resumed run continues from a copy of its middle checkpoint.
RUNS: dict[str, tuple[str, ...]] = {
    "crf": ("run_ner_crf.py", *_NER, "--crf_learning_rate=1e-2"),
    "softmax": ("run_ner_softmax.py", *_NER),
    "accumulation": ("run_ner_crf.py", *_NER, "--gradient_accumulation_steps=2", "--markup=bioes"),
    "averaging_adversary": ("run_ner_crf.py", *_NER, "--averaging=ema", "--do_adv", "--rdrop_alpha=0.5"),
    "windows": (
        "run_ner_softmax.py",
        *_NER,
        "--train_max_seq_length=24",
        "--eval_max_seq_length=24",
        "--loss_type=lsr",
    ),
    "resumed": ("run_ner_crf.py", *_NER, "--save_steps=HALF"),
    "two_processes": (*_TORCHRUN, "run_ner_crf.py", *_NER),
    "lightning_crf": (*_LIGHTNING_NER, "--head=crf"),
    "lightning_softmax": (*_LIGHTNING_NER, "--averaging=ema", "--do_adv"),
    "lightning_glue": (
        *("run_pl_glue.py", "--task=MRPC", "--data_dir=outputs/pairs", "--from_scratch", "--learning_rate=1e-3"),
        *("--model_name_or_path=datasets/sample_pairs/encoder", *_LIGHTNING),
    ),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_results", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("revisions", nargs=2, metavar="REV", help="two commits")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of each run")
    args = parser.parse_args(argv)
    if args.steps < 2:
        parser.error(f"--steps {args.steps}: a run needs at least 2, so that one can be resumed half-way")
    differences = 0
    with TemporaryDirectory(prefix="same-results-") as home:
        checkouts = [check_out(revision, Path(home, name)) for name, revision in zip("ab", args.revisions, strict=True)]
        with ThreadPoolExecutor(2) as pool:
            for name in tqdm(args.runs, unit="run"):
                folders = list(pool.map(lambda checkout, name=name: train(checkout, name, args.steps), checkouts))
                found = list(compare(*folders))
                differences += len(found)
                tqdm.write(f"{name}: {'equal' if not found else f'{len(found)} differences'}")
                for difference in found[:_LISTED]:
                    tqdm.write(f"  {difference}")
    sys.exit(f"{differences} differences between {' and '.join(args.revisions)}" if differences else 0)


def check_out(revision: str, folder: Path) -> Path:
    """The files of a commit without its history, with the first sentences of its samples under ``outputs``."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    tags = set()
    for split, count in _SENTENCES.items():
        sentences = (folder / f"datasets/sample/{split}.txt").read_text("utf-8").split("\n\n")[:count]
        tags |= {line.split(" ")[-1] for sentence in sentences for line in sentence.splitlines()}
        pairs = (folder / f"datasets/sample_pairs/{split}.tsv").read_text("utf-8").splitlines()[: count + 1]
        contents = {f"sample/{split}.txt": "\n\n".join(sentences), f"pairs/{split}.tsv": "\n".join(pairs)}
        for name, content in contents.items():
            path = folder / "outputs" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content + "\n", "utf-8")
    (folder / "outputs" / "labels.txt").write_text("\n".join(sorted(tags)) + "\n", "utf-8")
    return folder


def train(checkout: Path, name: str, steps: int) -> Path:
    """Runs the command of this name, and for ``resumed`` its second half again from the checkpoint.

    Raises:
        RuntimeError: a command failed.
    """
    folder = checkout / "outputs" / "runs" / name
    half = str(steps // 2)
    command = [value.replace("=STEPS", f"={steps}").replace("=HALF", f"={half}") for value in RUNS[name]]
    _run(checkout, [*command, f"--output_dir={folder}"])
    if name == "resumed":
        whole = folder.rename(folder.with_name("whole"))
        for kept in (f"checkpoint-{half}", "checkpoint-best"):
            shutil.copytree(whole / kept, folder / kept)
        _run(checkout, [*command, f"--output_dir={folder}", "--resume_from_checkpoint=auto"])
    return folder


def _run(checkout: Path, command: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


def compare(left: Path, right: Path) -> Iterator[str]:
    """The differences between two run folders: weights, TensorBoard scalars, result files and predictions."""
    names = [{path.relative_to(folder).as_posix() for path in _compared_files(folder)} for folder in (left, right)]
    for name in sorted(names[0] | names[1]):
        if name in names[0] & names[1]:
            found = _differences(_content(left / name), _content(right / name))
            yield from (f"{name}: {difference}" for difference in found)
        else:
            yield f"{name}: only in the {'first' if name in names[0] else 'second'}"
    yield from (f"TensorBoard: {difference}" for difference in _differences(_scalars(left), _scalars(right)))


def _scalars(folder: Path) -> list[dict[str, dict[int, float]]]:
    return [read_scalars(events) for events in sorted({path.parent for path in folder.rglob("events.*")})]


def _compared_files(folder: Path) -> Iterator[Path]:
    for pattern in ("*.safetensors", "*_results.json", "*_documents.jsonl", "*_predictions.*"):
        yield from folder.rglob(pattern)


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else text.splitlines()


def _differences(left: Any, right: Any, place: str = "") -> Iterator[str]:
    """The differences between two nested values; NaN equals NaN."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}, key=str):
            if str(key).rpartition("/")[2] in _UNCOMPARED:
                continue
            if key in left and key in right:
                yield from _differences(left[key], right[key], f"{place}.{key}".lstrip("."))
            else:
                yield f"{place}.{key}".lstrip(".") + f" only in the {'first' if key in left else 'second'}"
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            yield from _differences(*pair, f"{place}[{index}]")
    elif isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        if left.shape != right.shape or left.dtype != right.dtype:
            yield f"{place} is {left.dtype} {tuple(left.shape)}, then {right.dtype} {tuple(right.shape)}"
        elif not torch.equal(left, right):
            yield f"{place} differs by up to {float((left.double() - right.double()).abs().max()):.2e}"
    elif left != right and not (left != left and right != right):
        yield f"{place} is {left!r}, then {right!r}"[:300]


if __name__ == "__main__":
    main()
