"""Check and measure everything that needs a GPU, in less than 10 minutes.

bash scripts/gpu_check.sh            # on a machine with a GPU
bash scripts/gpu_check.sh --dry_run  # the same commands at a tiny size, on the CPU

Writes ``gpu.json`` and ``gpu.md``: figures and output of each check, and what to do about those that failed. The corpus
is made of the bundled sample, with the sentence lengths of CoNLL-2003; the encoder has random weights.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table
from tqdm import tqdm

from benchmarks.crf import machine, versions
from common.log import console
from common.tag_schemes import MARKUPS, entities_to_tags
from processors.formats.columns import read_columns
from processors.spans import Reading
from tools.new_encoder import write_encoder
from tools.run_folder import write_json
from tools.script import run_script

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "datasets" / "sample"
# Words per sentence of CoNLL-2003's train split, at every tenth of the sentences.
_LENGTHS = (1, 3, 5, 7, 8, 10, 13, 19, 26, 32, 113)
_BERT_VOCABULARY = 30522
_LIMIT, _DRY_LIMIT = 570, 3600  # seconds of all checks
_KERNEL_TESTS = "tests/models/crf/test_crf_triton.py"
_SHOWN_LINES = 40  # of the output of a check


class Size(NamedTuple):
    """How much is computed.

    Args:
        layers, width, vocabulary: of the encoder.
        sentences: of an epoch; a tenth for dev.
        steps: of short trainings.
        epochs, rate: of the longer ones; a dry run has to find some entities.
    """

    layers: int = 12
    width: int = 768
    vocabulary: int = _BERT_VOCABULARY
    sentences: int = 14_041
    steps: int = 60
    epochs: int = 1
    rate: str = "3e-5"


_DRY = Size(layers=1, width=64, vocabulary=0, sentences=60, steps=3, epochs=10, rate="2e-3")


@dataclass(frozen=True)
class Check:
    """A command.

    Args:
        command: arguments of Python.
        limit: seconds that it may take on a machine with a GPU.
        remedy: what to do if it fails.
        figures: regular expression for each figure in its output.
        results: file with more figures, which it writes.
        needs: GPUs that it needs; it is skipped if there are fewer. A dry run does with none instead of one.
    """

    name: str
    command: Sequence[str | Path]
    limit: int
    remedy: str
    figures: Mapping[str, str] = field(default_factory=dict)
    results: Path | None = None
    needs: int = 1


@dataclass(frozen=True)
class Outcome:
    """What a check gave: ``passed``, ``failed`` or ``skipped``."""

    name: str
    outcome: str
    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)
    command: str = ""
    output: str = ""
    remedy: str = ""


def checks(home: Path, size: Size, gpus: int, dry: bool) -> Iterator[Check]:
    """All checks, in the order in which they run.

    Args:
        gpus: of this machine.
        dry: compute little, and on the CPU.
    """
    torch_backend = "wrap the training in models.crf.backend.use_backend('torch')"
    yield Check(
        "tests that need a GPU",
        ["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *([_KERNEL_TESTS] if dry else [])],
        150,
        f"run those that failed by name; if they are in {_KERNEL_TESTS}, {torch_backend}",
        {name: rf"(\d+) {name}" for name in ("passed", "skipped", "failed")},
    )
    small = ["--rounds", "1", "--threads", "1", "--device", "cpu"] if dry else ["--rounds", "5"]
    yield Check(
        "CRF kernels and their peers",
        ["-m", "benchmarks.crf", *small, *(["--shape", "3,6,4", "--shape", "2,3,5"] if dry else [])],
        100,
        f"if a kernel is wrong or slow (columns error and step), {torch_backend}",
    )
    yield Check(
        "training step with CRF and with softmax",
        ["-m", "benchmarks.crf", "--encoder", *small],
        60,
        "profile the step with torch.profiler",
        {"softmax ms": r"softmax ([\d.]+) ms", "CRF ms": r"CRF ([\d.]+) ms", "CRF to softmax": r"ratio ([\d.]+)"},
    )
    given = [
        *("--task_name", "gpu_check", "--data_dir", home / "corpus", "--model_name_or_path", home / "encoder"),
        *("--from_scratch", "--learning_rate", size.rate, "--per_gpu_train_batch_size", "4" if dry else "32"),
        *("--feature_cache_dir", home / "cache", "--evaluate_during_training", "false", "--report_to", "none"),
        *(["--no_cuda"] if dry else []),
    ]
    anew = ["--do_train", "--overwrite_output_dir", "--output_dir"]
    few_steps = ["--max_steps", str(size.steps)]
    for head in ("crf", "softmax"):
        folder = home / head
        flags = [*given, *anew, folder, "--bf16", "--num_train_epochs", str(size.epochs)]
        yield Check(
            f"{head} in bf16",
            [f"run_ner_{head}.py", *flags],
            60,
            "if it is out of memory, lower --per_gpu_train_batch_size; if bf16 is not supported, use --fp16",
            results=folder / "train_results.json",
        )
    yield Check(
        "precisions",
        ["-m", "benchmarks.precision", "run_ner_crf.py", *given, *few_steps],
        120,
        "a precision in which steps are skipped or F1 falls is unfit for this encoder: use --bf16",
        {
            f"{name} words/s": rf"{name}\W+([\d,]+)\W+[\d.]+"
            for name in ("float32", "bfloat16", "tensorfloat32", "float16, torch.amp")
        },
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={max(1, gpus)}"]
    unreachable = "set NCCL_DEBUG=INFO; if devices cannot reach each other, try NCCL_P2P_DISABLE=1"
    for name, script, remedy, needs in (
        ("DataParallel", ["run_ner_crf.py"], "use torchrun instead, which is also faster: see docs/distributed.md", 2),
        ("DistributedDataParallel", [*launcher, "run_ner_crf.py"], unreachable, 1),
        ("Lightning", ["run_pl_ner.py"], "use run_ner_crf.py, which trains the same model", 1),
    ):
        folder = home / name.lower()
        command = [*script, *given, *anew, folder, *few_steps]
        yield Check(name, command, 60, remedy, results=folder / "train_results.json", needs=needs)
    texts: list[str | Path] = ["--model", home / "softmax", "--texts", home / "corpus" / "dev.txt"]
    on_cpu = ["--sentences", "4", "--documents", "2", "--rounds", "1", "--device", "cpu"]
    names = ("pipeline fp32", "pipeline bf16", "ours fp32", "ours bf16")
    yield Check(
        "prediction, and the pipeline of transformers",
        ["-m", "benchmarks.predict", *texts, *(on_cpu if dry else ["--sentences", "500", "--rounds", "2"])],
        90,
        "predict with --device cpu",
        {f"{name} texts/s": rf"\| {name} \| (\d+) " for name in names},
    )
    few = ["--clients", "4", "--requests", "12", "--shortest", "5", "--longest", "60"]
    yield Check(
        "service",
        ["-m", "benchmarks.serve", *texts, *(few if dry else ["--requests", "500"])],
        60,
        "start serve_ner.py by itself and look at its log",
    )


def write_corpus(folder: Path, sentences: int) -> None:
    """Write splits in columns: the words of the sample in sentences as long as those of CoNLL-2003."""
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = [
        (word, tag)
        for example in read_columns(SAMPLE / "train.txt", Reading())
        for word, tag in zip(
            example.words, entities_to_tags(example.entities or (), len(example.words), MARKUPS["bio"]), strict=True
        )
    ]
    for split, number in (("train", sentences), ("dev", max(20, sentences // 10))):
        lines = []
        for share in (draw.random() for _ in range(number)):
            length = round(float(np.interp(share, np.linspace(0, 1, len(_LENGTHS)), _LENGTHS)))
            start = draw.randrange(len(words) - length)
            tags = ["O", *(tag for _, tag in words[start : start + length])]
            for (word, tag), before in zip(words[start : start + length], tags, strict=False):
                is_cut = tag.startswith("I-") and before == "O"
                lines.append(f"{word} B-{tag[2:]}" if is_cut else f"{word} {tag}")
            lines.append("")
        (folder / f"{split}.txt").write_text("\n".join(lines), "utf-8")


def write_vocabulary(path: Path, size: int) -> Path:
    """Write the word pieces of the sample's encoder, and unused ones up to ``size``."""
    pieces = (SAMPLE / "encoder" / "vocab.txt").read_text("utf-8").splitlines()
    pieces += [f"[unused{number}]" for number in range(size - len(pieces))]
    path.write_text("\n".join(pieces) + "\n", "utf-8")
    return path


def run(check: Check, limit: float) -> Outcome:
    """Run a check in a process of its own, for at most ``limit`` seconds."""
    words = list(map(str, check.command))
    start = time.perf_counter()
    output, reason = run_python(words, limit)
    found = {name: re.search(pattern, output) for name, pattern in check.figures.items()}
    figures = {name: float(match[1].replace(",", "")) for name, match in found.items() if match}
    if check.results and not reason:
        figures |= json.loads(check.results.read_text("utf-8"))
    return Outcome(
        check.name,
        "failed" if reason else "passed",
        time.perf_counter() - start,
        {name: value for name, value in figures.items() if value is not None},
        " ".join(["python", *words]),
        output,
        f"{reason}: {check.remedy}" if reason else "",
    )


def run_python(words: Sequence[str], limit: float) -> tuple[str, str]:
    """Run ``python WORD ...``: what it printed, and why it failed, which is empty if it did not."""
    command, pipe = [sys.executable, *words], subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit)
            return output, f"exit status {process.returncode}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started, which hold the pipe
            output, _ = process.communicate()
            return output, f"stopped after {limit:.0f} s"


def as_markdown(outcomes: Sequence[Outcome], title: str) -> str:
    """The report: a table of all checks, then the output of each."""
    parts = [f"# GPU check\n\n{title}\n", "| check | | seconds | figures |\n|---|---|---:|---|"]
    for one in outcomes:
        figures = ", ".join(f"{name} {value:,.6g}" for name, value in one.figures.items())
        parts.append(f"| {one.name} | {one.outcome} | {one.seconds:.0f} | {figures or one.remedy} |")
    for one in outcomes:
        if one.output:
            shown = "\n".join(one.output.strip().splitlines()[-_SHOWN_LINES:])
            remedy = f"\n{one.remedy}\n" if one.remedy else ""
            parts.append(f"\n## {one.name}\n{remedy}\n```\n$ {one.command}\n{shown}\n```")
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "gpu_check", help="folder to write")
    parser.add_argument("--dry_run", action="store_true", help="compute little, on the CPU")
    args = parser.parse_args()
    gpus, home = torch.cuda.device_count(), args.output_dir.resolve()
    if not gpus and not args.dry_run:
        raise ValueError("torch finds no GPU: install a build of torch for its driver, or add --dry_run")
    size = _DRY if args.dry_run else Size()
    write_corpus(home / "corpus", size.sentences)
    write_encoder(home / "encoder", write_vocabulary(home / "vocab.txt", size.vocabulary), size.layers, size.width)
    title = f"{machine(torch.device('cpu' if args.dry_run else 'cuda'), torch.get_num_threads())}; {versions()}"
    end = time.monotonic() + (_DRY_LIMIT if args.dry_run else _LIMIT)
    outcomes: list[Outcome] = []
    for check in tqdm(list(checks(home, size, gpus, args.dry_run)), desc="Checks"):
        tqdm.write(check.name)
        left = end - time.monotonic()
        if gpus < check.needs and not (args.dry_run and check.needs == 1):
            outcomes.append(Outcome(check.name, "skipped", remedy=f"needs {check.needs} GPUs, there are {gpus}"))
        elif left <= 0:
            command = " ".join(["python", *map(str, check.command)])
            outcomes.append(Outcome(check.name, "failed", command=command, remedy=f"no time left: run {command}"))
        else:
            outcomes.append(run(check, left if args.dry_run else min(check.limit, left)))
        # after each check, so that nothing is lost if the machine is
        write_json(home / "gpu.json", {"machine": title, "checks": list(map(asdict, outcomes))})
        (home / "gpu.md").write_text(as_markdown(outcomes, title), "utf-8")
    table = Table("check", "", "seconds", "remedy")
    for one in outcomes:
        table.add_row(one.name, one.outcome, f"{one.seconds:.0f}", one.remedy)
    console().print(table)
    print(f"Written to {home / 'gpu.md'} and gpu.json")
    if failed := [one.name for one in outcomes if one.outcome == "failed"]:
        sys.exit(f"{len(failed)} of {len(outcomes)} checks failed: {', '.join(failed)}")


if __name__ == "__main__":
    run_script(main)
