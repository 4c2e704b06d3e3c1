"""Atomic writing of files and folders."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
