"""One run at a time writes into a folder: an OS lock, which ends with the process that holds it, however that ends."""

import logging
import os
import socket
import sys
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)
_LOCK_FILE, _HOLDER_FILE = ".run.lock", ".run.lock.holder"
_held: list[FileLock] = []  # by this process: at most one


def lock_run_folder(folder: Path) -> None:
    """Makes the folder, and keeps other processes from writing into it until `unlock_run_folder` or the process ends.

    Rank 0 holds the lock for all processes of its run. A process that locks another folder lets go of the first.

    Raises:
        ValueError: another run writes into the folder.
    """
    unlock_run_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / _LOCK_FILE), folder / _HOLDER_FILE
    try:
        lock.acquire(timeout=0)
    except Timeout:
        advice = "wait until it has ended, or name another --output_dir"
        known = holder.read_text("utf-8") if holder.is_file() else "another run"
        raise ValueError(f"{folder} is in use by {known}; {advice}") from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): do not start a second run with the same --output_dir", folder, error)
        return
    _held.append(lock)
    process, since = f"process {os.getpid()} on {socket.gethostname()}", datetime.now().isoformat(" ", "seconds")
    holder.write_text(f"{Path(sys.argv[0]).name}, {process} since {since}", "utf-8")


def unlock_run_folder() -> None:
    """Lets others write into the folder that this process has locked, if any."""
    while _held:
        _held.pop().release()
