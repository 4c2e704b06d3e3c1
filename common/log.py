"""Logging to the terminal and to the log of the run, and tables on the terminal."""

import logging
import sys
import warnings
from pathlib import Path

import transformers
from rich.console import Console
from tqdm import tqdm

from common.run_files import RunFolder

ROOMS = ("analysis", "callbacks", "common", "inference", "lightning_runs", "models", "processors", "tools")


class _TqdmHandler(logging.Handler):
    """Prints above progress bars. tqdm's ``logging_redirect_tqdm`` drops the level of the handler that it replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except OSError:  # nobody reads stderr any more: continue without it
            self.handleError(record)


def setup_logging(output_dir: Path | None = None, anew: bool = False, is_main: bool = True) -> None:
    """Messages of this project at level INFO, of libraries at WARNING; other ranks report only warnings."""
    handlers: list[logging.Handler] = [_TqdmHandler()]
    if output_dir is not None and is_main:
        handlers.append(logging.FileHandler(RunFolder(output_dir).log, mode="w" if anew else "a", encoding="utf-8"))
    handlers[0].setLevel(logging.INFO)  # the file also gets tracebacks, at level DEBUG
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    for package in ROOMS:
        logging.getLogger(package).setLevel(logging.DEBUG if is_main else logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*optimizer.step.*")  # GradScaler skips steps


def console() -> Console:
    """A terminal in colour, or plain text of a readable width in a file."""
    return Console() if sys.stdout.isatty() else Console(width=100, no_color=True, highlight=False)
