"""Stopped as schedulers stop a job, or by a disk: what a user sees, and that the run can go on."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.helpers import write_corpus
from tests.tools.forks import Forked
from tests.tools.launched import TORCHRUN, Launched
from tests.tools.ranks import script_on_ranks
from tests.tools.runs import call_script, flags, options_of_run, start_script
from tools.distributed import EXIT_CODE, Interruption, watch_for_interruption

SCRIPT = ["run_ner_crf.py"]


@pytest.fixture
def options(encoder: Path, tmp_path: Path) -> dict[str, Any]:
    corpus = write_corpus(tmp_path / "corpus", {"train": 60, "dev": 20})
    steps = {"max_steps": 400, "log_loss_steps": 1, "logging_steps": 100, "do_train": True, "from_scratch": True}
    return {**options_of_run(encoder, corpus, tmp_path), **steps, "per_gpu_train_batch_size": 4}


def resumed(options: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The step at which a run was interrupted, and options to go on for five more."""
    (checkpoint,) = Path(options["output_dir"]).glob("checkpoint-*/training_state.pt")
    step = int(checkpoint.parent.name.rpartition("-")[2])
    assert 1 <= step < 400
    return step, options | {"max_steps": step + 5, "resume_from_checkpoint": "auto"}


def test_a_run_that_is_told_to_end_can_go_on(options: dict[str, Any]) -> None:
    run = Forked(SCRIPT, flags(**options))
    run.wait_for("step 1/")
    os.kill(run.pid, signal.SIGTERM)
    assert run.end().returncode == EXIT_CODE
    step, options = resumed(options)
    done = start_script(*SCRIPT, **options)
    assert done.returncode == 0, done.stderr
    assert f"Resuming after step {step} of {step + 5}" in done.stderr
    assert "resuming with" not in done.stderr


@pytest.mark.slow
def test_two_processes_that_are_told_to_end_can_go_on_as_two_or_one(options: dict[str, Any]) -> None:
    launched = Launched([*TORCHRUN, *SCRIPT], **options)
    launched.wait_for("step 1/")
    launched.signal(signal.SIGTERM)
    code, printed = launched.end()
    assert code == 1, printed  # torchrun has an exit code of its own
    step, options = resumed(options)
    copy = options | {"output_dir": f"{options['output_dir']} of one", "per_gpu_train_batch_size": 8}
    shutil.copytree(options["output_dir"], copy["output_dir"])
    by_two = [rank.end() for rank in script_on_ranks(2, SCRIPT, flags(**options))]
    by_one = start_script(*SCRIPT, **copy)
    for done in (*by_two, by_one):
        assert done.returncode == 0, done.stderr
    for done in (by_two[0], by_one):
        assert f"Resuming after step {step} of {step + 5}" in done.stderr
        assert ("resuming with 1 processes (was 2)" in done.stderr) == (done is by_one)


def test_a_signal_is_seen_only_while_training_and_told_apart_from_none() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with watch_for_interruption() as interruption:
        assert not interruption.seen_by_any()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption.seen_by_any()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_in_another_thread_training_works_without_signals() -> None:
    found: list[Interruption] = []

    def watch() -> None:
        with watch_for_interruption() as interruption:
            found.append(interruption)

    thread = Thread(target=watch)
    thread.start()
    thread.join()
    assert not found[0].seen_by_any()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def error_of(action: Callable[[], None]) -> str:
    with pytest.raises(SystemExit) as end:
        action()
    return str(end.value)


def test_a_failed_write_is_explained_and_leaves_the_checkpoints(options: dict[str, Any]) -> None:
    options |= {"max_steps": 4, "save_steps": 2, "evaluate_during_training": False}
    call_script("run_ner_crf", **options)
    folder = Path(options["output_dir"])
    before = {path: path.stat().st_mtime_ns for path in folder.glob("checkpoint-*/*")}
    more = {**options, "max_steps": 6, "resume_from_checkpoint": "auto"}
    for name in ("model.safetensors", "training_state.pt"):
        with files_of_at_most((folder / "checkpoint-4" / name).stat().st_size - 1):
            error = error_of(lambda: call_script("run_ner_crf", **more))
        assert "checkpoint-6 cannot be written" in error
        assert "File too large" in error
        assert error.endswith("; complete: checkpoint-2, checkpoint-4")
        assert not list(folder.glob(".*unfinished"))
        assert {path: path.stat().st_mtime_ns for path in folder.glob("checkpoint-*/*")} == before
    call_script("run_ner_crf", **more)
    assert (folder / "checkpoint-6" / "training_state.pt").is_file()


def test_a_place_that_cannot_be_written_is_named(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    options["output_dir"] = tmp_path / "file" / "run"
    assert f"{tmp_path / 'file'}" in error_of(lambda: call_script("run_ner_crf", **options))
