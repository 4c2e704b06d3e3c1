"""Training speed, memory and F1, compared to other trainers: same encoder, texts, batch size, optimiser and precision.

python -m benchmarks.train --task_name conll2003 --data_dir DATA --model_name_or_path ENCODER --output_dir OUT

Takes the flags of the training scripts. The contestants train in processes of their own, in turns of four steps, so
that a busy moment of a shared machine meets all of them; several rounds have different seeds. The first step is not
timed. F1 is that of dev after the same number of epochs.
The transformers Trainer needs ``pip install accelerate``, Flair the Python of an environment of its own, see
`benchmarks.other_libraries`.
"""

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel

from analysis.compare_runs import Sheet, as_markdown
from benchmarks.stopwatch import TURNS, Measured
from benchmarks.train_peers import CONTESTANTS, opened_encoder
from common.options import option
from models import BertCrfForNer
from tools.command_line import parse_flags
from tools.folds import settings_of_splits
from tools.meter import encoder_cost, peak_flops
from tools.precision import choose_precision
from tools.run import corpus_of
from tools.run_folder import write_json
from tools.script import run_script
from tools.settings import Settings, require

_OURS_ALONE = "the other trainers do not have it, so the comparison would not be of the same training"
REFUSED = dict.fromkeys(
    (
        *("fp16", "casing", "document_context", "gradient_accumulation_steps", "max_batch_tokens", "layer_decay"),
        *("averaging", "do_adv", "rdrop_alpha", "bilstm_size", "word_dropout", "optim", "lr_scheduler_type"),
    ),
    _OURS_ALONE,
)
REFERENCES = ("trainer", "trainer_by_length")
_MODULES = {"flair": ("benchmarks.other_libraries", "train")}


@dataclass(frozen=True)
class RaceOptions:
    """Flags of the benchmark."""

    rounds: int = option(3, "trainings of each, with different seeds; the median is shown", common=True, at_least=1)
    contestants: str = option(",".join(CONTESTANTS), "who takes part", common=True, nargs="+")
    sentences: int = option(
        0, "train on the first texts only, and score as many of dev; 0: all", common=True, at_least=0
    )
    flair_python: str = option("", "Python of an environment with Flair, which then takes part", common=True)


class Contestant:
    """A training in a process of its own, which works only in its turns.

    Args:
        settings: of the training; its ``output_dir`` and files with the same name are written.
        python: of an environment of its own, or empty.
    """

    def __init__(self, name: str, settings: Settings, python: str = "") -> None:
        self.name, folder = name, Path(settings.actions.output_dir)
        folder.parent.mkdir(parents=True, exist_ok=True)
        settings_file, self._results, self._log = (
            folder.with_suffix(end) for end in (".settings.json", ".json", ".log")
        )
        write_json(settings_file, settings.flat())
        command = [python or sys.executable, "-m", *_MODULES.get(name, ("benchmarks.train_peers", name))]
        turn, self._give = os.pipe()
        self._over, over = os.pipe()
        with self._log.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                [*command, str(settings_file), str(self._results)],
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(turn, over),
                env=os.environ | {TURNS: f"{turn},{over}"},
            )
        os.close(turn)
        os.close(over)

    def work(self) -> bool:
        """Wait until its turn is over; returns whether there will be another."""
        return bool(os.read(self._over, 1))

    def give_turn(self) -> None:
        os.write(self._give, b".")

    def measured(self) -> Measured:
        """What it measured.

        Raises:
            ValueError: it ended with an error.
        """
        if self._process.wait():
            last = self._log.read_text("utf-8").strip().splitlines()[-1]
            raise ValueError(f"{self.name} ended with an error, see {self._log}: {last}")
        return Measured(**json.loads(self._results.read_text("utf-8")))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._give)
        os.close(self._over)


def race(contestants: Sequence[Contestant]) -> dict[str, Measured]:
    """Let all load, and then train in turns of a few steps."""
    try:
        for one in contestants:
            if not one.work():
                one.measured()
        left = list(contestants)
        while left:
            for one in left.copy():
                one.give_turn()
                if not one.work():
                    left.remove(one)
        return {one.name: one.measured() for one in contestants}
    finally:
        for one in contestants:
            one.close()


def encoder_flops(settings: Settings, texts: list[list[str]]) -> tuple[float, float]:
    """Floating-point operations of training the encoder on the real tokens of a sentence, on average, and the device's
    per second."""
    encoder, tokenizer, length = opened_encoder(settings)
    inputs = tokenizer(texts, is_split_into_words=True, truncation=True, max_length=length)
    lengths = np.array([len(ids) for ids in inputs["input_ids"]])
    cost = encoder_cost(AutoModel.from_pretrained(encoder)).of_training(lengths) / len(texts)
    device = device_of(settings)
    return cost, peak_flops(device, choose_precision(settings.machine, device).dtype, n_gpu=1)


def device_of(settings: Settings) -> torch.device:
    return torch.device("cpu" if settings.machine.no_cuda or not torch.cuda.is_available() else "cuda")


def rows(figures: dict[str, list[Measured]], words: float, flops: tuple[float, float]) -> Iterator[list[str]]:
    """A row per contestant: its median speed, the median of the ratios within each round, and the mean F1.

    Args:
        words: per sentence.
        flops: of a sentence, and of the device per second.
    """
    speeds = {name: [one.sentences / one.seconds for one in trainings] for name, trainings in figures.items()}
    cost, peak = flops
    for name, trainings in figures.items():
        speed, last = statistics.median(speeds[name]), trainings[-1]
        ratios = [
            statistics.median(own / of_other for own, of_other in zip(speeds[name], speeds[other], strict=True))
            if other in speeds
            else None
            for other in REFERENCES
        ]
        yield [
            CONTESTANTS.get(name, "Flair, softmax"),
            f"{speed:,.1f}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            f"{speed * words:,.0f}",
            f"{speed * last.tokens / last.sentences:,.0f}",
            f"{1 - last.tokens / last.computed_tokens:.1%}",
            f"{speed * cost / peak:.2f}",
            f"{max(one.memory_gib for one in trainings):.2f}",
            f"{100 * statistics.fmean(one.f1 for one in trainings):.2f}",
        ]


def main() -> None:
    description = (__doc__ or "").partition("\n")[0]
    blank = Settings(head=BertCrfForNer.Options())
    settings, (options,) = parse_flags(blank, description, more=[RaceOptions], refused=REFUSED)
    require(settings, "task_name", "output_dir", "model_name_or_path")
    names = options.contestants.split(",")
    if unknown := [name for name in names if name not in CONTESTANTS]:
        raise ValueError(f"--contestants {', '.join(unknown)}: expected some of {', '.join(CONTESTANTS)}")
    if options.flair_python:
        names.append("flair")
        if settings.machine.bf16:
            raise ValueError("--bf16 --flair_python: Flair has no mixed precision in bfloat16")
    if settings.optimisation.num_train_epochs % 1 or settings.optimisation.max_steps > 0:
        raise ValueError("contestants train whole epochs: give --num_train_epochs a whole number, and no --max_steps")
    corpus, home = corpus_of(settings.data), Path(settings.actions.output_dir)
    texts = [one for one in corpus.examples("train") if one.words and one.entities is not None]
    texts = texts[: options.sentences or None]
    if len(texts) * settings.optimisation.num_train_epochs <= settings.optimisation.per_gpu_train_batch_size:
        raise ValueError(f"{len(texts)} sentences are one step, which is not timed: give more --num_train_epochs")
    splits = {"train": texts, "dev": [one for one in corpus.examples("dev") if one.words][: options.sentences or None]}
    own = settings_of_splits(home / "data", splits, corpus.entity_types(), settings)
    own = own.replace(do_train=True, overwrite_output_dir=True)
    figures: dict[str, list[Measured]] = {name: [] for name in names}
    for number in tqdm(range(options.rounds), desc="Rounds"):
        seed = settings.optimisation.seed + number
        contestants = [
            Contestant(
                name,
                own.replace(output_dir=str(home / f"{name}_{number}"), seed=seed),
                options.flair_python if name == "flair" else "",
            )
            for name in random.Random(seed).sample(names, len(names))  # who follows whom may matter
        ]
        for name, one in race(contestants).items():
            figures[name].append(one)
    words = [list(one.words) for one in texts]
    columns = ["", "sentences/s", *(f"against {name}" for name in REFERENCES), "words/s", "tokens/s"]
    columns += ["padding", "utilisation", "memory, GiB", "dev F1"]
    found = list(rows(figures, sum(map(len, words)) / len(words), encoder_flops(own, words)))
    on_cpu = device_of(settings).type == "cpu"
    device = f"{torch.get_num_threads()} CPU threads" if on_cpu else torch.cuda.get_device_name()
    title = f"{len(texts):,} sentences, batches of {settings.optimisation.per_gpu_train_batch_size}, {device}"
    text = f"{title}\n\n{as_markdown(Sheet('', 1, columns, found))}\n"
    (home / "table.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    run_script(main)
