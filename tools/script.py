"""How a script ends: errors as messages, process groups, locks."""

import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from tools import distributed
from tools.run_folder import unlock_run_folder

logger = logging.getLogger(__name__)
_LAUNCHER_LOOKS = 2.0  # seconds; longer than a launcher's polling interval


def _call_and_fail_last(main: Callable[[], None]) -> None:
    """Delay errors caused by lost peers, so that the launcher reports the process that failed first."""
    try:
        main()
    except RuntimeError as error:
        if distributed.world_size() > 1 and not isinstance(error, distributed.MainProcessError):
            time.sleep(_LAUNCHER_LOOKS)
        raise


def run_script(main: Callable[[], None]) -> None:
    """Run a script's ``main``; errors in arguments or data end it with a message instead of a traceback.

    A failed process does not leave the process group, which would wait for the others; the launcher ends them.
    """
    try:
        record(partial(_call_and_fail_last, main))()  # for the launcher's summary
    except distributed.MainProcessError:
        distributed.wait_for_the_end_of_main()
        logging.shutdown()
        os._exit(1)  # a normal exit would close a lost connection, and Gloo aborts on that
    except (ValueError, OSError, FloatingPointError) as error:
        logger.debug("Traceback:", exc_info=True)
        who = "" if distributed.is_main() else f"rank {distributed.rank()}: "
        sys.exit(f"{Path(sys.argv[0]).name}: error: {who}{error}")
    except distributed.Interrupted:
        distributed.leave_process_group()
        raise
    finally:
        unlock_run_folder()
    distributed.leave_process_group()
