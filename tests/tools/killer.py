"""Runs a script again and again, and kills it at random points.

    python -m tests.tools.killer KILLS SEED OUTPUT_DIR run_ner_crf FLAG...

The first run is left in peace. Those after it are killed after a random part of its time, and started again with
``--resume_from_checkpoint auto`` until they end; then comes the next, until there were so many kills. Prints as JSON
how many, the folders of the runs that ended, and the step of the checkpoint that each kill left.
"""

import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.run_files import RunFolder
from tools.checkpoint import checkpoint_to_resume
from tools.script import run_script

ENDED = 0


def kill_often(kills: int, generator: random.Random, home: Path, start: Callable[[Path], int]) -> dict[str, object]:
    begin = time.monotonic()
    assert _exit_status(start(home / "undisturbed")) == ENDED
    duration = time.monotonic() - begin
    folders: list[str] = []
    steps: list[int] = []
    while len(steps) < kills:
        folder = home / f"killed-{len(folders)}"
        while (status := _exit_status(start(folder), generator.uniform(0, duration))) == -signal.SIGKILL:
            steps.append(_step_of_checkpoint(folder))
        assert status == ENDED, f"{folder} ended with {status}"
        folders.append(folder.name)
    return {"kills": len(steps), "folders": folders, "steps": steps}


def _exit_status(process: int, patience: float = float("inf")) -> int:
    """Of a process that ends, or is killed when the patience is."""
    deadline = time.monotonic() + patience
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.001)


def _step_of_checkpoint(folder: Path) -> int:
    """The step from which the run will go on; 0 where there is no checkpoint yet."""
    checkpoint = checkpoint_to_resume("auto", RunFolder(folder))
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _forked_runs(script: str, flags: list[str]) -> Callable[[Path], int]:
    """Starts runs of a script that is imported but once."""
    main = importlib.import_module(script).main

    def start(folder: Path) -> int:
        process = os.fork()
        if process:
            return process
        sys.argv = [script, *flags, f"--output_dir={folder}", "--resume_from_checkpoint=auto"]
        try:
            run_script(main)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(ENDED)

    return start


if __name__ == "__main__":
    kills, seed, home, script, *flags = sys.argv[1:]
    found = kill_often(int(kills), random.Random(int(seed)), Path(home), _forked_runs(script, flags))
    print(json.dumps(found))
