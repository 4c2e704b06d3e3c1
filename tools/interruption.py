"""Handle SIGTERM and SIGUSR1, which schedulers send before preemption: finish the step, write a checkpoint, exit."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tools.distributed import any_rank

logger = logging.getLogger(__name__)
EXIT_CODE = 75  # EX_TEMPFAIL in sysexits.h: the scheduler may restart the job
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has no USR1


class Interrupted(SystemExit):
    """Training was stopped by a signal, after writing a checkpoint."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class Interruption:
    """Records whether a stop signal was received."""

    def __init__(self) -> None:
        self._signal = 0

    def notice(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self._signal = number

    def listen(self) -> None:
        """Install the signal handlers; Python allows this in the main thread only, elsewhere it does nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self.notice)

    def seen_by_any(self) -> bool:
        """Whether any rank received a signal. All ranks must call it at the same point."""
        seen = any_rank(self._signal != 0)
        if seen and self._signal:
            logger.warning("%s: ending this step, then writing a checkpoint", signal.Signals(self._signal).name)
        return seen


@contextmanager
def watch_for_interruption() -> Iterator[Interruption]:
    """Record SIGTERM and SIGUSR1 instead of being killed by them. Has no effect outside the main thread."""
    interruption, handlers = Interruption(), {number: signal.getsignal(number) for number in _SIGNALS}
    interruption.listen()
    try:
        yield interruption
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
