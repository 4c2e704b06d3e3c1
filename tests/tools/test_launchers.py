"""Scripts on ranks: the results of one process, everything written once, and what happens when a process dies."""

import random
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from analysis.report.run_data import read_scalars
from models import BertCrfForNer
from tests.helpers import write_corpus
from tests.tools.launched import TORCHRUN, Launched
from tests.tools.ranks import on_ranks, script_on_ranks
from tests.tools.runs import (
    call_script,
    encoder_without_dropout,
    flags,
    options_of_run,
    read_json,
    read_predictions,
)
from tools.command_line import parse_settings

pytestmark = pytest.mark.slow
STEPS = 48


@pytest.fixture(scope="module")
def home(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("launchers")
    write_corpus(home / "corpus", {"train": 60, "dev": 21, "test": 21})  # not divisible by two
    encoder_without_dropout(encoder, home / "encoder")
    return home


def options(home: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Six epochs; the windows are short, so that documents are spread over the ranks."""
    actions = {"do_train": True, "from_scratch": True, "do_eval": True, "do_predict": True, "save_steps": 10}
    lengths = {"eval_max_seq_length": 12, "num_train_epochs": 6.0, "log_loss_steps": 1}
    chosen = {**options_of_run(home / "encoder", home / "corpus", home), **actions, **lengths, **changes}
    return {**chosen, "output_dir": home / name, "feature_cache_dir": home / f"cache of {name}"}


@pytest.fixture(scope="module")
def alone(home: Path) -> Path:
    """One process with the global batch of the others."""
    call_script("run_ner_crf", **options(home, "alone", per_gpu_train_batch_size=8))
    return home / "alone"


@pytest.fixture(scope="module")
def together(home: Path) -> tuple[Path, str]:
    """Two processes, and what they printed."""
    chosen = flags(**options(home, "together", per_gpu_train_batch_size=4))
    ranks = [rank.end() for rank in script_on_ranks(2, ["run_ner_crf.py"], chosen)]
    printed = "".join(rank.stdout + rank.stderr for rank in ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    return home / "together", printed


def test_two_processes_score_as_one(alone: Path, together: tuple[Path, str]) -> None:
    for name in ("eval_results.json", "test_results.json"):
        ours, theirs = read_json(alone / name), read_json(together[0] / name)
        assert theirs.pop("loss") == pytest.approx(ours.pop("loss"), abs=1e-4)
        confidences = ours.pop("calibration"), theirs.pop("calibration")  # equal up to rounding, as the weights are
        assert confidences[0]["brier"] == pytest.approx(confidences[1]["brier"], abs=1e-3)
        dials = ours.pop("dial"), theirs.pop("dial")
        assert [row["asked"] for row in dials[0]] == [row["asked"] for row in dials[1]]
        assert theirs == ours
    assert read_json(alone / "eval_results.json")["f1"] > 0.4


def test_two_processes_predict_as_one(alone: Path, together: tuple[Path, str]) -> None:
    ours, theirs = read_predictions(alone), read_predictions(together[0])
    assert len(theirs) == 21
    for one, other in zip(ours, theirs, strict=True):
        pairs = zip(one["entities"], other["entities"], strict=True)
        assert all(left.pop("confidence") == pytest.approx(right.pop("confidence"), abs=1e-3) for left, right in pairs)
    assert theirs == ours


def test_two_processes_lose_as_one(alone: Path, together: tuple[Path, str]) -> None:
    ours, theirs = read_scalars(alone / "tensorboard"), read_scalars(together[0] / "tensorboard")
    assert theirs.keys() == ours.keys()
    assert theirs["train/loss"] == pytest.approx(ours["train/loss"], rel=1e-3)
    assert theirs["dev/f1"] == pytest.approx(ours["dev/f1"], abs=1e-4)


def event_files(folder: Path) -> list[str]:
    """Their names without the time: events.out.tfevents.TIME.HOST.WHAT."""
    return sorted(path.name.split(".", maxsplit=4)[-1] for path in (folder / "tensorboard").iterdir())


def test_everything_is_written_and_said_once(alone: Path, together: tuple[Path, str]) -> None:
    folder, printed = together
    names = {path.relative_to(folder) for path in folder.rglob("*") if "tensorboard" not in path.parts}
    assert names == {path.relative_to(alone) for path in alone.rglob("*") if "tensorboard" not in path.parts}
    assert event_files(folder) == event_files(alone)
    assert read_json(folder / "environment.json")["processes"] == 2
    assert printed.count("train: 60 sentences") == 1
    assert printed.count(f"Trained {STEPS} steps") == 1
    assert printed.count("strict by scheme") == 2  # one table for dev, one for test


def test_the_arguments_written_by_two_processes_run_in_one(together: tuple[Path, str]) -> None:
    config = str(together[0] / "training_args.json")
    assert parse_settings(BertCrfForNer.Options, argv=["--config_file", config]).machine.local_rank == -1


def test_an_error_ends_both_processes_and_is_said_once(home: Path) -> None:
    chosen = options(home, "broken", train_file=home / "nowhere.txt")
    code, printed = Launched([*TORCHRUN, "run_ner_crf.py"], **chosen).end()
    assert code != 0
    assert printed.count("run_ner_crf.py: error: ") == 1
    assert "nowhere.txt" in printed


def test_accumulation_and_adversarial_training_run_on_two_processes(home: Path) -> None:
    changes = {"gradient_accumulation_steps": 2, "per_gpu_train_batch_size": 2, "do_adv": True, "max_steps": 3}
    on_ranks(2, call_quietly, "run_ner_softmax", options(home, "softmax", **changes))
    assert list(read_scalars(home / "softmax" / "tensorboard")["train/loss"]) == [1, 2, 3]


def call_quietly(script: str, options: dict[str, Any]) -> None:
    with redirect_stdout(StringIO()):
        call_script(script, **options)


def some_step() -> int:
    """One of which the log tells."""
    return random.randrange(3, STEPS - 5, 3) + 1


def test_a_rank_that_is_killed_takes_the_job_down(home: Path) -> None:
    step, rank = some_step(), random.randrange(2)
    launched = Launched([*TORCHRUN, "run_ner_crf.py"], **options(home, "killed", per_gpu_train_batch_size=4))
    launched.wait_for(f"step {step}/{STEPS}")
    launched.kill_rank(rank)
    code, printed = launched.end()
    assert code != 0
    _, _, cause = printed.partition("Root Cause (first observed failure)")
    assert f"(local_rank: {rank})" in cause, printed
    assert "Signal 9 (SIGKILL)" in cause


def test_the_launcher_starts_again_and_the_training_ends_as_if_nothing_had_happened(
    home: Path, together: tuple[Path, str]
) -> None:
    step, rank = some_step(), random.randrange(2)
    changes = {"per_gpu_train_batch_size": 4, "resume_from_checkpoint": "auto"}
    launched = Launched([*TORCHRUN, "--max_restarts=1", "run_ner_crf.py"], **options(home, "restarted", **changes))
    launched.wait_for(f"step {step}/{STEPS}")
    launched.kill_rank(rank)
    code, printed = launched.end()
    assert code == 0, printed
    assert ("Resuming after step" in printed) == (step >= 10)
    for name in ("model.safetensors", "test_predictions.jsonl"):
        assert (home / "restarted" / name).read_bytes() == (together[0] / name).read_bytes()
