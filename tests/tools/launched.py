"""Launchers at work: what they print, and the processes that they started."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers import ROOT
from tests.tools.runs import flags

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


class Launched:
    """``[PREFIX] python COMMAND --option=value ...``, running.

    Args:
        command: what python runs.
        prefix: what runs python, for instance in another network namespace.
        environment: variables to add.
        options: flags of the script.
    """

    def __init__(
        self,
        command: Sequence[str],
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})}
        self._process = subprocess.Popen(
            [*prefix, sys.executable, *command, *flags(**options)],
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []

    def wait_for(self, text: str) -> None:
        """Reads until a line holds the text."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}:\n{''.join(self._lines)}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill_rank(self, rank: int) -> None:
        """SIGKILL to one of the processes that the launcher started."""
        os.kill(self._pid_of(rank), signal.SIGKILL)

    def end(self, timeout: float = 120) -> tuple[int, str]:
        """Waits; exit code and all that was printed."""
        try:
            rest, _ = self._process.communicate(timeout=timeout)
        finally:
            self._process.kill()
        return self._process.returncode, "".join([*self._lines, rest])

    def _pid_of(self, rank: int) -> int:
        for pid in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            if f"RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes().replace(b"LOCAL_RANK", b""):
                return int(pid)
        raise AssertionError(f"the launcher has no child of rank {rank}")
