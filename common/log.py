"""Logging to the terminal and the log file of the run, and tables on the console."""

import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import transformers
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from common.run_files import RunFolder

ROOMS = ("analysis", "callbacks", "common", "inference", "lightning_runs", "models", "processors", "tools")


class _TqdmHandler(logging.Handler):
    """Prints above progress bars; unlike tqdm's ``logging_redirect_tqdm`` it keeps the level of the handler."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except OSError:  # stderr is closed: continue without it
            self.handleError(record)


def setup_logging(output_dir: Path | None = None, anew: bool = False, is_main: bool = True) -> None:
    """Set up logging: INFO for this project, WARNING for libraries and for ranks other than 0.

    Args:
        output_dir: folder of the run, whose log file is written too.
        anew: overwrite the log file instead of appending to it.
        is_main: whether this is rank 0.
    """
    handlers: list[logging.Handler] = [_TqdmHandler()]
    if output_dir is not None and is_main:
        handlers.append(logging.FileHandler(RunFolder(output_dir).log, mode="w" if anew else "a", encoding="utf-8"))
    handlers[0].setLevel(logging.INFO)  # the log file also gets DEBUG messages, such as tracebacks
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    for package in ROOMS:
        logging.getLogger(package).setLevel(logging.DEBUG if is_main else logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*optimizer.step.*")  # GradScaler skips steps


def console() -> Console:
    """A coloured console on a terminal; plain text of 100 columns otherwise."""
    return Console() if sys.stdout.isatty() else Console(width=100, no_color=True, highlight=False)


def console_table(columns: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1, title: str = "") -> Table:
    """A table for the console; the first ``names`` columns hold names, the others numbers."""
    table = Table(title=title or None)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < names else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
