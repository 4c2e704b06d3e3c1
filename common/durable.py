"""Folders and files that are there whole or not at all, whenever the process or the machine stops."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_UNFINISHED, _PUT_ASIDE = ".unfinished", ".put-aside"  # names that nobody else's hidden folders have
_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """An empty folder, next to ``folder``, to write to; whatever is left in it in the end is removed."""
    fresh = folder.with_name(f".{folder.name}{_UNFINISHED}")
    remove_folder(fresh)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    finally:
        remove_folder(fresh)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which in the end, synced to the disk, takes the place of ``folder``.

    Whatever fails on the way leaves ``folder`` as it was. What a killed process leaves, ``tidy`` puts right.
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
    """A file to write to, which in the end, synced to the disk, takes the place of ``path``; the same for one file."""
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
    """Moves files one by one over those of the same names, the one that vouches for all others ``last``."""
    sync_folder(fresh)
    for path in sorted(fresh.iterdir(), key=lambda path: (path.name == last, path.name)):
        path.replace(folder / path.name)
    _sync(folder)


def remove_folder(folder: Path) -> None:
    """Removes a folder that may be there; what is interrupted half-way has another name already."""
    if not folder.exists():
        return
    doomed = folder if folder.name.startswith(".") else _put_aside(folder)
    if doomed != folder:
        remove_folder(doomed)
        folder.rename(doomed)
    shutil.rmtree(doomed)


def tidy(parent: Path) -> None:
    """Finishes what a killed process had begun: a folder put aside whose successor never came is put back."""
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
    """Whether a full disk, or quota, is behind an error: libraries hide its number in a text or in an earlier error."""
    while error:
        if getattr(error, "errno", None) in _FULL or any(os.strerror(number) in str(error) for number in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def sync_folder(folder: Path) -> None:
    """Waits until the disk has a folder and all that is in it."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _put_aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_PUT_ASIDE}")


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows syncs no folders
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """A path at which to write a file or folder; without an error it is moved to ``path`` at the end.

    Raises:
        FileExistsError: ``path`` is a folder; a file is replaced.
    """
    if path.is_dir():
        raise FileExistsError(f"{path} is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as aside:
        complete = Path(aside, path.name)
        yield complete
        complete.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """Writes a small text file so that readers never see a partial file, even with concurrent writers."""
    with whole_or_absent(path) as complete:
        complete.write_text(text, "utf-8")
