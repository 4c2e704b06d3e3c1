"""Load test of the service: concurrent clients with texts of mixed lengths; lost answers, speed and memory.

python -m benchmarks.serve --model outputs/run --texts news.txt
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from common.log import console
from common.memory import memory_mib
from inference.formats import json_entities
from inference.predictor import NerPredictor

_ROOT = Path(__file__).parent.parent
_START_TIMEOUT = 300  # seconds
_SAME_CONFIDENCE = 1e-3  # float32 rounding depends on the batch


class Service(NamedTuple):
    """A service in its own process."""

    port: int
    process: subprocess.Popen[str]


class Answer(NamedTuple):
    """The answer to a request, and how long it took."""

    status: int
    body: Any
    seconds: float


def main() -> None:
    args = parse_arguments()
    texts = mixed_texts(args.texts.read_text("utf-8").split(), args.requests, args.shortest, args.longest)
    print(f"{len(texts)} texts of {args.shortest} to {args.longest} characters: the predictor alone ...")
    predictor = NerPredictor.load(args.model, "cpu")
    start = time.perf_counter()
    expected = [json_entities(entities) for entities in predictor(texts)]
    alone = time.perf_counter() - start
    print(f"... and the service with {args.clients} clients")
    limits = ("--device=cpu", f"--max_characters={max(20_000, args.longest)}", "--timeout=600")
    with running_service(args.model, *limits, f"--workers={args.workers}") as service:
        processes = wait_for_workers(service, args.workers) if args.workers > 1 else [service.process.pid]
        idle = memory_mib(processes, "VmRSS")
        start = time.perf_counter()
        answers = ask_all(service.port, texts, args.clients)
        seconds = time.perf_counter() - start
        peak = memory_mib(processes, "VmHWM")
    lost = sum(answer.status != 200 for answer in answers)
    wrong = sum(not is_same(answer, found) for answer, found in zip(answers, expected, strict=True)) - lost
    milliseconds = 1000 * np.percentile([answer.seconds for answer in answers], [50, 99])
    title = f"{args.clients} clients, processes with a model: {args.workers}, {os.cpu_count()} cores"
    table = Table("", title=title)
    table.add_column(justify="right")
    table.add_row("requests", str(len(texts)))
    table.add_row("lost", str(lost))
    table.add_row("different from the predictor's", str(wrong))
    table.add_row("requests per second", f"{len(texts) / seconds:.1f}")
    table.add_row("texts per second, predictor alone", f"{len(texts) / alone:.1f}")
    table.add_row("p50, ms", f"{milliseconds[0]:.0f}")
    table.add_row("p99, ms", f"{milliseconds[1]:.0f}")
    table.add_row("memory before, MiB", f"{idle:.0f}")
    table.add_row("peak memory, MiB", f"{peak:.0f}")
    console().print(table)
    if lost or wrong:
        sys.exit("the service lost or changed answers")


@contextmanager
def running_service(model: Path, *options: str, launcher: Sequence[str] = ()) -> Iterator[Service]:
    """Start ``serve_ner.py`` on a free port, wait until it is healthy, and stop it at the end.

    Args:
        launcher: command that replaces itself with the command that follows it.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [*launcher, sys.executable, "serve_ner.py", f"--model={model}", f"--port={port}", *options]
    with subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait_for_health(port, process)
            yield Service(port, process)
        finally:
            process.terminate()


def _wait_for_health(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service exited: {process.communicate()[1]}")
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the service was not healthy after {_START_TIMEOUT} s")


def ask_all(port: int, texts: Sequence[str], clients: int) -> list[Answer]:
    """The answers to all texts, in order, from concurrent clients with one connection each."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(lambda text: ask(port, {"text": text}), texts))


def ask(port: int, request: Any) -> Answer:
    """Post a request: bytes as they are, anything else as JSON. Without an answer the status is 0."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    start = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return Answer(response.status, json.loads(response.read()), time.perf_counter() - start)
    except OSError as error:
        return Answer(0, {"error": str(error)}, time.perf_counter() - start)
    finally:
        connection.close()


def is_same(answer: Answer, expected: list[dict[str, Any]]) -> bool:
    """Whether an answer has these entities, with confidences that differ only by rounding."""
    found = answer.body.get("entities", [])
    return (
        answer.status == 200
        and len(found) == len(expected)
        and all(
            abs(one["confidence"] - other["confidence"]) <= _SAME_CONFIDENCE
            and {**one, "confidence": 0} == {**other, "confidence": 0}
            for one, other in zip(found, expected, strict=True)
        )
    )


def mixed_texts(words: list[str], count: int, shortest: int, longest: int, seed: int = 0) -> list[str]:
    """Passages from random places of a text, with log-uniform lengths."""
    generator = random.Random(seed)
    texts = []
    for _ in range(count):
        length = round(shortest * (longest / shortest) ** generator.random())
        place = generator.randrange(len(words))
        passage = (words * (2 + length // len(words)))[place : place + length]
        texts.append(" ".join(passage)[:length])
    return texts


def wait_for_workers(service: Service, count: int) -> list[int]:
    """Wait until all workers are ready; returns the process ids of the parent and of the workers."""
    assert service.process.stderr is not None
    found = [service.process.pid]
    while len(found) <= count and (line := service.process.stderr.readline()):
        if "Started server process" in line:
            found.append(int(line.rpartition("[")[2].rstrip("]\n")))
    return found


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="output_dir of a training run")
    parser.add_argument("--texts", type=Path, required=True, help="any text file; passages of it are sent")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of the service")
    parser.add_argument("--clients", type=int, default=64, help="concurrent clients")
    parser.add_argument("--requests", type=int, default=2000, help="total number of requests")
    parser.add_argument("--shortest", type=int, default=20, help="characters of the shortest text")
    parser.add_argument("--longest", type=int, default=2000, help="characters of the longest text")
    return parser.parse_args()


if __name__ == "__main__":
    main()
