"""Two runs never write into one folder at once, and a run that was killed is in nobody's way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT
from tests.lightning_runs.lightning_runs import call_lightning, ner_options
from tests.tools.runs import call_script, options_of_run
from tools.run_folder import lock_run_folder, unlock_run_folder

# Forks a child that outlives it, as a worker of a DataLoader may.
HOLD = """
import os, sys, time
from pathlib import Path
from tools.run_folder import lock_run_folder
lock_run_folder(Path(sys.argv[1]))
child = os.fork() if hasattr(os, "fork") else 0
if child or not hasattr(os, "fork"):
    print(child, flush=True)
time.sleep(100)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A folder into which another process writes."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield folder, process
    process.kill()
    process.wait()
    if child:
        os.kill(child, signal.SIGKILL)
    unlock_run_folder()


def test_the_second_run_is_told_who_holds_the_folder_until_that_is_killed(
    held: tuple[Path, subprocess.Popen[str]], encoder: Path, corpus_dir: Path, tmp_path: Path
) -> None:
    folder, process = held
    (folder / ".checkpoint-2.unfinished").mkdir()
    options: dict[str, Any] = options_of_run(encoder, corpus_dir, tmp_path) | {"from_scratch": True, "max_steps": 2}
    starts = [
        lambda: call_script("run_ner_crf", **options, do_train=True),
        lambda: call_script("run_ner_softmax", **options, do_train=True, resume_from_checkpoint="auto"),
        lambda: call_script("run_ner_crf", **options, do_eval=True),
        lambda: call_lightning("run_pl_ner", **ner_options(encoder, corpus_dir, tmp_path)),
    ]
    said = (
        rf"{folder} is in use by -c, process {process.pid} on \S+ since 20\S+ \S+; wait until it has finished, or name"
    )
    for start in starts:
        with pytest.raises(SystemExit, match=said):
            start()
    assert (folder / ".checkpoint-2.unfinished").is_dir()
    process.kill()
    process.wait()
    call_script("run_ner_crf", **options, do_train=True)
    assert (folder / "model.safetensors").is_file()
    assert not (folder / ".checkpoint-2.unfinished").exists()


def test_a_process_holds_one_folder_after_another(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        lock_run_folder(tmp_path / name)
    unlock_run_folder()
    unlock_run_folder()


def test_a_folder_that_cannot_be_locked_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".run.lock").mkdir()
    lock_run_folder(tmp_path)
    assert f"{tmp_path} cannot be locked" in caplog.text
