"""Processes that are forked from one that has imported the libraries; importing them takes some seconds each time."""

import atexit
import gc
import multiprocessing
import os
import runpy
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import mkdtemp

from tests.helpers import ROOT

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["tests.tools.ranks", "tools.recipe", "inference.predictor", "lightning_runs.module", "models.crf.cpu"]
)
TIMEOUT = 300


class Forked:
    """``python COMMAND FLAG ...`` in the project's folder, running.

    Args:
        command: a script, or ``-m`` and a module, and perhaps arguments.
        environment: variables to add.
        stdout: where to write, if it is not to be kept; for instance a named pipe.
    """

    def __init__(
        self,
        command: Sequence[str],
        flags: Sequence[str],
        environment: Mapping[str, str] | None = None,
        stdout: Path | None = None,
    ) -> None:
        self._words = [*command, *flags]
        self._folder = Path(mkdtemp())
        self._outputs = [stdout or self._folder / "stdout", self._folder / "stderr"]
        work = (command, flags, dict(environment or {}), *self._outputs)
        self._process = FORKS.Process(target=_run_as_main, args=work)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def wait_for(self, text: str) -> None:
        """Waits until the text is in what the process writes to its standard error."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            has_ended = not self._process.is_alive()
            if text in (said := self._read(self._outputs[1])):
                return
            assert not has_ended, f"ended without {text!r}:\n{said}"
            time.sleep(0.01)
        raise AssertionError(f"no {text!r} in {TIMEOUT} s:\n{said}")

    def end(self) -> CompletedProcess[str]:
        """Waits for the end."""
        self._process.join(TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        assert self._process.exitcode is not None
        done = CompletedProcess(self._words, self._process.exitcode, *map(self._read, self._outputs))
        shutil.rmtree(self._folder)
        return done

    def _read(self, output: Path) -> str:
        return output.read_text("utf-8") if output.is_file() else ""


def _run_as_main(
    command: Sequence[str], flags: Sequence[str], environment: dict[str, str], stdout: Path, stderr: Path
) -> None:
    gc.freeze()  # a collection would touch, and so copy, the memory of the process that this one was forked from
    for descriptor, path in ((1, stdout), (2, stderr)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(ROOT)
    os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment})
    words = [*command, *flags]
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # as at the end of a script; multiprocessing leaves them out
