"""Atomic writes of files and folders: after a crash they are either complete or absent."""

import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

_UNFINISHED, _PUT_ASIDE = ".unfinished", ".put-aside"  # suffixes of our temporary files
_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


@contextmanager
def atomic_write(
    path: Path, folder: Literal["refuse", "replace", "keep"] = "refuse", sync: bool = True
) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, which is renamed to ``path`` when the block succeeds.

    On failure ``path`` stays unchanged. `tidy` removes what a killed process leaves behind. An existing file is
    always replaced.

    Args:
        folder: what to do if ``path`` is an existing folder: raise an error, replace it, or keep it and discard the
            new one (for instance because another process was faster).
        sync: whether to flush everything to disk.

    Raises:
        FileExistsError: ``path`` is a folder and ``folder`` is ``refuse``.
    """
    if folder == "refuse" and path.is_dir():
        raise FileExistsError(f"{path} already exists")
    with _fresh(path) as fresh:
        yield fresh
        if sync:
            _sync_all(fresh)
        if fresh.is_file():
            fresh.replace(path)
        elif folder == "replace":
            _replace_folder(fresh, path)
        else:
            try:
                fresh.rename(path)
            except OSError:
                if folder == "refuse" or not path.is_dir():
                    raise
        if sync:
            _sync(path.parent)


@contextmanager
def atomic_files(folder: Path, last: str) -> Iterator[Path]:
    """Yield an empty temporary folder, whose files are moved into ``folder`` one by one when the block succeeds.

    Args:
        last: name of the file to move last: if it exists, all others are complete.
    """
    with _fresh(folder / "files") as fresh:
        fresh.mkdir()
        yield fresh
        _sync_all(fresh)
        for path in sorted(fresh.iterdir(), key=lambda path: (path.name == last, path.name)):
            path.replace(folder / path.name)
        _sync(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder if it exists. It is renamed first, so an interruption leaves no partial folder of that name."""
    if folder.exists():
        doomed = _aside(folder)
        _delete(doomed)
        folder.rename(doomed)
        _delete(doomed)


def tidy(parent: Path) -> None:
    """Clean up after a killed process: restore a folder that was not replaced yet and delete temporary files."""
    for old in parent.glob(f".*{_PUT_ASIDE}/"):
        name = old.name[1:].removesuffix(_PUT_ASIDE)
        if any(parent.glob(f".{glob.escape(name)}.*{_UNFINISHED}")) and not (parent / name).exists():
            old.rename(parent / name)
    for left in (*parent.glob(f".*{_PUT_ASIDE}/"), *parent.glob(f".*{_UNFINISHED}")):
        _delete(left)


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk or quota caused an error, also where a library wraps the original error or its message."""
    while error:
        if getattr(error, "errno", None) in _FULL or any(os.strerror(number) in str(error) for number in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _fresh(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        yield fresh
    finally:
        _delete(fresh)


def _replace_folder(fresh: Path, path: Path) -> None:
    old = _aside(path)
    _delete(old)
    try:
        if path.exists():
            path.rename(old)
        fresh.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    _delete(old)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_PUT_ASIDE}")


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def _sync_all(path: Path) -> None:
    for one in (*path.rglob("*"), path) if path.is_dir() else (path,):
        _sync(one)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot sync folders
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
