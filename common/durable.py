"""Write folders and files atomically: complete or not at all, whenever the process or the machine stops."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_UNFINISHED, _PUT_ASIDE = ".unfinished", ".put-aside"  # suffixes of hidden folders that no one else uses
_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """An empty folder next to ``folder`` to write to; what is left in it at the end is removed."""
    fresh = folder.with_name(f".{folder.name}{_UNFINISHED}")
    remove_folder(fresh)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    finally:
        remove_folder(fresh)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which is then synced to disk and replaces ``folder``.

    After an error ``folder`` is as before. After a kill, `tidy` cleans up.
    """
    old = _put_aside(folder)
    with unfinished_folder(folder) as fresh:
        try:
            yield fresh
            sync_folder(fresh)
            remove_folder(old)
            if folder.exists():
                folder.rename(old)
            fresh.rename(folder)
            _sync(folder.parent)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
    remove_folder(old)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """As `replaced_folder`, for a file."""
    fresh = path.with_name(f".{path.name}{_UNFINISHED}")
    try:
        with fresh.open("wb") as file:
            yield file
        _sync(fresh)
        fresh.replace(path)
        _sync(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def publish_files(fresh: Path, folder: Path, last: str) -> None:
    """Move the files of a folder into another one; ``last`` comes last, since readers take it for completeness."""
    sync_folder(fresh)
    for path in sorted(fresh.iterdir(), key=lambda path: (path.name == last, path.name)):
        path.replace(folder / path.name)
    _sync(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder if it exists, after renaming it, so that no half of it keeps its name."""
    if not folder.exists():
        return
    doomed = folder if folder.name.startswith(".") else _put_aside(folder)
    if doomed != folder:
        remove_folder(doomed)
        folder.rename(doomed)
    shutil.rmtree(doomed)


def tidy(parent: Path) -> None:
    """Clean up after a killed process: restore folders put aside without a successor, and remove unfinished ones."""
    for old in parent.glob(f".*{_PUT_ASIDE}/"):
        name = old.name[1:].removesuffix(_PUT_ASIDE)
        if (parent / f".{name}{_UNFINISHED}").exists() and not (parent / name).exists():
            old.rename(parent / name)
    for suffix in (_UNFINISHED, _PUT_ASIDE):
        for left in parent.glob(f".*{suffix}/"):
            remove_folder(left)
    for file in parent.glob(f".*{_UNFINISHED}"):
        file.unlink()


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk or quota caused an error; libraries hide its number in a text or in an earlier error."""
    while error:
        if getattr(error, "errno", None) in _FULL or any(os.strerror(number) in str(error) for number in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def sync_folder(folder: Path) -> None:
    """Sync a folder and all that is in it to disk."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _put_aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_PUT_ASIDE}")


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot sync folders
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """A path to write a file or folder to, which is then moved to ``path``; removed after an error.

    Raises:
        FileExistsError: ``path`` is a folder. A file is replaced.
    """
    if path.is_dir():
        raise FileExistsError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as aside:
        complete = Path(aside, path.name)
        yield complete
        complete.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers never see a part of it, even with concurrent writers."""
    with whole_or_absent(path) as complete:
        complete.write_text(text, "utf-8")
