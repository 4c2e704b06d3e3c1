"""Asked to stop, as schedulers do before they take a machine away: finish the step, write a checkpoint, end."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tools.distributed import any_rank

logger = logging.getLogger(__name__)
EXIT_CODE = 75  # "temporary failure" in sysexits.h: start me again
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has no USR1


class Interrupted(SystemExit):
    """The training stopped at a signal, after writing a checkpoint."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class Interruption:
    """Whether this training was asked to stop."""

    def __init__(self) -> None:
        self._signal = 0

    def notice(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self._signal = number

    def listen(self) -> None:
        """Installs the signal handlers, from the main thread: in others it is not possible."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self.notice)

    def seen_by_any(self) -> bool:
        """The same on all ranks; all must ask at the same place."""
        seen = any_rank(self._signal != 0)
        if seen and self._signal:
            logger.warning("%s: ending this step, then writing a checkpoint", signal.Signals(self._signal).name)
        return seen


@contextmanager
def watch_for_interruption() -> Iterator[Interruption]:
    """Notices SIGTERM and SIGUSR1 instead of dying of them; without effect outside the main thread."""
    interruption, handlers = Interruption(), {number: signal.getsignal(number) for number in _SIGNALS}
    interruption.listen()
    try:
        yield interruption
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
