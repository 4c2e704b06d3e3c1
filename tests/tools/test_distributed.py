"""One process and two: the same scores, and everything written once."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tools.distributed
from tests.callbacks.events import read_scalars
from tests.helpers import write_corpus
from tests.tools.runs import (
    call_script,
    encoder_without_dropout,
    options_of_run,
    read_json,
    read_predictions,
    start_script,
)
from tools.arguments import CrfArguments, parse_arguments
from tools.distributed import (
    barrier,
    is_main,
    leave_process_group,
    main_process_first,
    rank,
    setup_devices,
    sum_over_ranks,
    world_size,
)

LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"],
    "launch": ["-m", "torch.distributed.launch", "--standalone", "--nproc_per_node=2"],
}


def test_one_process_is_the_main_one() -> None:
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    barrier()
    leave_process_group()


def test_a_sum_over_one_rank_is_the_value() -> None:
    assert sum_over_ranks(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_without_a_launcher_one_process_takes_the_cpu() -> None:
    args = CrfArguments(no_cuda=True)
    setup_devices(args)
    assert (args.device, args.n_gpu, args.local_rank) == (torch.device("cpu"), 0, -1)


def test_a_local_rank_without_a_launcher_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--local_rank is for torch\.distributed\.launch; .* torchrun"):
        setup_devices(CrfArguments(no_cuda=True, local_rank=0))


@pytest.mark.parametrize(("is_main", "expected"), [(True, ["block", "barrier"]), (False, ["barrier", "block"])])
@pytest.mark.parametrize("fails", [False, True])
def test_the_others_wait_until_rank_0_is_done_or_has_failed(
    is_main: bool, expected: list[str], fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(tools.distributed, "is_main", lambda: is_main)
    monkeypatch.setattr(tools.distributed, "barrier", lambda: calls.append("barrier"))

    def block() -> None:
        with main_process_first():
            calls.append("block")
            if fails:
                raise KeyError("disk full")

    if fails:
        with pytest.raises(KeyError):
            block()
    else:
        block()
    assert calls == expected


@pytest.fixture(scope="module")
def home(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("distributed")
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


@pytest.fixture(scope="module", params=list(LAUNCHERS))
def together(request: pytest.FixtureRequest, home: Path) -> tuple[Path, str]:
    """Two processes, and what they printed."""
    chosen = options(home, request.param, per_gpu_train_batch_size=4)
    done = start_script(*LAUNCHERS[request.param], "run_ner_crf.py", **chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    return home / request.param, done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_score_as_one(alone: Path, together: tuple[Path, str]) -> None:
    for name in ("eval_results.json", "test_results.json"):
        ours, theirs = read_json(alone / name), read_json(together[0] / name)
        assert theirs.pop("types").keys() == ours.pop("types").keys()
        assert theirs == pytest.approx(ours, abs=1e-4)
    assert read_json(alone / "eval_results.json")["f1"] > 0.4


@pytest.mark.slow
def test_two_processes_predict_as_one(alone: Path, together: tuple[Path, str]) -> None:
    ours, theirs = read_predictions(alone), read_predictions(together[0])
    assert len(theirs) == 21
    for one, other in zip(ours, theirs, strict=True):
        pairs = zip(one["entities"], other["entities"], strict=True)
        assert all(left.pop("confidence") == pytest.approx(right.pop("confidence"), abs=1e-3) for left, right in pairs)
    assert theirs == ours


@pytest.mark.slow
def test_two_processes_lose_as_one(alone: Path, together: tuple[Path, str]) -> None:
    ours, theirs = read_scalars(alone / "tensorboard"), read_scalars(together[0] / "tensorboard")
    assert theirs.keys() == ours.keys()
    assert theirs["train/loss"] == pytest.approx(ours["train/loss"], rel=1e-3)
    assert theirs["dev/f1"] == pytest.approx(ours["dev/f1"], abs=1e-4)


@pytest.mark.slow
def test_everything_is_written_and_said_once(alone: Path, together: tuple[Path, str]) -> None:
    folder, printed = together
    names = {path.relative_to(folder) for path in folder.rglob("*") if "tensorboard" not in path.parts}
    assert names == {path.relative_to(alone) for path in alone.rglob("*") if "tensorboard" not in path.parts}
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert read_json(folder / "environment.json")["processes"] == 2
    assert printed.count("train: 60 sentences") == 1
    assert printed.count("Trained 48 steps") == 1
    assert printed.count("strict by scheme") == 2  # one table for dev, one for test


@pytest.mark.slow
def test_the_arguments_written_by_two_processes_run_in_one(together: tuple[Path, str]) -> None:
    args = parse_arguments(CrfArguments, ["--config_file", str(together[0] / "training_args.json")])
    setup_devices(args)
    assert args.local_rank == -1


@pytest.mark.slow
def test_an_error_ends_both_processes(home: Path) -> None:
    chosen = options(home, "broken", train_file=home / "nowhere.txt")
    done = start_script(*LAUNCHERS["torchrun"], "run_ner_crf.py", **chosen)
    assert done.returncode != 0
    assert "run_ner_crf.py: error: " in done.stderr
    assert "nowhere.txt" in done.stderr


@pytest.mark.slow
def test_accumulation_and_adversarial_training_run_on_two_processes(home: Path) -> None:
    changes = {"gradient_accumulation_steps": 2, "per_gpu_train_batch_size": 2, "do_adv": True, "max_steps": 3}
    done = start_script(*LAUNCHERS["torchrun"], "run_ner_softmax.py", **options(home, "softmax", **changes))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(read_scalars(home / "softmax" / "tensorboard")["train/loss"]) == [1, 2, 3]
