"""Clients that hold connections, and processes that share the port."""

import logging
import signal
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from os import kill
from pathlib import Path

import pytest

from benchmarks.serve import ask, running_service, wait_for_workers
from inference.server import RateLimit
from tests.tools.runs import FinishedRun

FILES, CONNECTIONS, READ_TIMEOUT = 128, 200, 3
# Sets the limit in the new process only: this one may have more files open already.
WITH_FEW_FILES = ["sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh"]
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BEGINNINGS = [
    b"",
    HEAD,
    HEAD + b'Content-Length: 99\r\n\r\n{"text": "',
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n63\r\n{",
]


def is_healthy(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return connection.recv(100).startswith(b"HTTP/1.1 200 ")


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(10)
    try:
        while connection.recv(10_000):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_clients_that_never_finish_a_request_keep_nobody_out(crf_run: FinishedRun) -> None:
    with ExitStack() as stack:
        timeout = f"--read_timeout={READ_TIMEOUT}"
        service = stack.enter_context(running_service(crf_run.folder, timeout, launcher=WITH_FEW_FILES))
        held = []
        for number in range(CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=10))
            connection.sendall(BEGINNINGS[number % len(BEGINNINGS)])
            held.append(connection)
            assert number % 20 or is_healthy(service.port)
        assert len(list(Path(f"/proc/{service.process.pid}/fd").iterdir())) < FILES
        until = time.monotonic() + READ_TIMEOUT
        while time.monotonic() < until:  # sending single bytes does not extend the timeout
            for connection in held:
                with suppress(OSError):
                    connection.send(b"x")
            assert is_healthy(service.port)
            time.sleep(0.3)
        assert all(map(is_closed, held))
        assert ask(service.port, {"text": "anna met bob"}).status == 200
        service.process.terminate()
        log = service.process.communicate(timeout=30)[1]
        assert "--max_requests lowered to 32 because ulimit -n is 128" in log
        assert len(log) < 5_000


def test_several_processes_answer_are_replaced_and_end_together(crf_run: FinishedRun) -> None:
    with running_service(crf_run.folder, "--workers=2") as service:
        _, *workers = wait_for_workers(service, 2)
        for stopped in workers:  # so the other worker has to answer
            kill(stopped, signal.SIGSTOP)
            assert ask(service.port, {"text": "anna met bob"}).status == 200
            kill(stopped, signal.SIGCONT)
        kill(workers[0], signal.SIGKILL)
        assert ask(service.port, {"text": "anna met bob"}).status == 200
        assert service.process.stderr is not None
        ended = next(line for line in service.process.stderr if "exited with status" in line)
        assert f"Process {workers[0]} exited with status -9: restarting" in ended
        service.process.terminate()
        log = service.process.communicate(timeout=60)[1]
        assert service.process.returncode == 0
        assert f"Finished server process [{workers[1]}]" in log
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_repeated_messages_are_held_back_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = []
    rate_limit, seconds = RateLimit(), [0.0] * 1000 + [61.0, 62.0]
    for second in seconds:
        monkeypatch.setattr("inference.server.time.monotonic", partial(float, second))
        for line in (1, 2):
            record = logging.LogRecord("asyncio", logging.ERROR, "file.py", line, "socket %d", (3,), None)
            if rate_limit.filter(record):
                passed.append(record.getMessage())
    assert len(passed) == 2 * 12
    assert passed[-4:] == ["socket 3 [990 similar messages were held back]"] * 2 + ["socket 3"] * 2
