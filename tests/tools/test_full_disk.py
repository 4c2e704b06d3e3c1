"""A real full disk while models are written: it is named, with what is there, and leaves nothing half-written."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.run_files import RunFolder
from tests.lightning_runs.lightning_runs import call_lightning, ner_options
from tests.tools.runs import call_script
from tools.run import Run
from tools.run_folder import explained_failure

SIZE = 4_000_000
Disk = Callable[[int], AbstractContextManager[Path]]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk of so many free bytes; skips where none can be mounted."""

    @contextmanager
    def mounted(free: int) -> Iterator[Path]:
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no tmpfs can be mounted here: that takes root")
        try:
            (folder / "filler").write_bytes(b"0" * (SIZE - free))
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # run.log is still open

    return mounted


@pytest.mark.parametrize(
    ("free", "changes", "target", "there"),
    [
        (300_000, {"save_steps": 2}, "checkpoint-2", "no checkpoint was written yet"),
        (2_700_000, {"save_steps": 2}, "checkpoint-4", "complete: checkpoint-2"),
        (700_000, {}, "model.safetensors", "complete: checkpoint-best"),
    ],
)
def test_a_full_disk_is_named_with_what_is_there(
    free: int,
    changes: dict[str, Any],
    target: str,
    there: str,
    disk: Disk,
    crf_args: Run,
) -> None:
    options = crf_args.settings.flat() | {"max_steps": 6}
    with disk(free) as folder:
        run = folder / "run"
        options |= {"output_dir": str(run), "evaluate_during_training": not changes, "report_to": "none"}
        with pytest.raises(SystemExit) as end:
            call_script("run_ner_crf", **options | changes)
        assert f"error: {run / target} cannot be written: the disk is full (" in str(end.value)
        assert str(end.value).endswith(f" MB free); {there}")
        assert not list(run.glob(".*unfinished"))


def test_lightning_names_a_full_disk_too(disk: Disk, encoder: Path, corpus_dir: Path, tmp_path: Path) -> None:
    with disk(1_600_000) as folder:
        options = ner_options(encoder, corpus_dir, tmp_path, report_to="none") | {"output_dir": folder / "run"}
        with pytest.raises(SystemExit, match=r"cannot be written: the disk is full \(.*; complete: checkpoint-best"):
            call_lightning("run_pl_ner", **options)
        assert not list((folder / "run").glob(".*unfinished"))


def write(path: Path, hidden: bool) -> None:
    """Fails, as libraries do that fail once more while they close a file."""
    try:
        with path.open("w") as file:
            file.write("0" * 100_000)
    finally:
        if hidden:
            raise RuntimeError("unexpected pos 576 vs 534")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("hidden", [False, True])
def test_a_full_disk_is_seen_behind_other_errors(hidden: bool, tmp_path: Path) -> None:
    said = pytest.raises(OSError, match=r"model cannot be written: the disk is full \(\d\S+ MB free\); no checkpoint")
    with said, explained_failure(tmp_path / "model", RunFolder(tmp_path)):
        write(Path("/dev/full"), hidden)


def test_other_failures_keep_their_words(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "config.json").touch()
    said = pytest.raises(OSError, match=r"model cannot be written: .*Is a directory.*; complete: checkpoint-3")
    with said, explained_failure(tmp_path / "model", RunFolder(tmp_path)):
        write(tmp_path, hidden=False)
    with pytest.raises(ZeroDivisionError), explained_failure(tmp_path / "model", RunFolder(tmp_path)):
        _ = 1 / 0
