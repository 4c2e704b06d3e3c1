"""The service in its own process: answers, errors, limits."""

import json
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any

import pytest

import serve_ner
from benchmarks.serve import Answer, Service, ask, ask_all, is_same, running_service
from inference.formats import json_entities
from inference.predictor import NerPredictor
from tests.tools.runs import FinishedRun, read_predictions
from tools.script import run_script

LIMITS = {"max_texts": 8, "max_characters": 2000, "max_requests": 24, "read_timeout": 3, "max_batch_size": 16}


@pytest.fixture(scope="module")
def service(crf_run: FinishedRun) -> Iterator[Service]:
    with running_service(crf_run.folder, *(f"--{name}={value}" for name, value in LIMITS.items())) as service:
        yield service


@pytest.fixture(scope="module")
def texts(crf_run: FinishedRun) -> list[str]:
    """Texts of one to twenty sentences."""
    sentences = [record["text"] for record in read_predictions(crf_run.folder)]
    return [" ".join((sentences * 2)[start : start + count]) for start in range(20) for count in (1, 2, 5, 20)]


@pytest.fixture(scope="module")
def expected(crf_run: FinishedRun, texts: list[str]) -> list[list[dict[str, Any]]]:
    found = NerPredictor.load(crf_run.folder, "cpu")(texts)
    assert sum(map(len, found)) > 100
    return [json_entities(entities) for entities in found]


def begin_request(port: int, length: int = 100) -> socket.socket:
    """Send a request with the beginning of its body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    headers = ["Host: x", "Connection: close", "Content-Type: application/json", f"Content-Length: {length}"]
    head = "\r\n".join(["POST /predict HTTP/1.1", *headers, "", ""])
    connection.sendall(head.encode() + b'{"text": ')
    return connection


def read_all(connection: socket.socket) -> bytes:
    """All that the service sends until it closes the connection."""
    with connection.makefile("rb") as file:
        return file.read()


def get(port: int, path: str) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_it_is_healthy(service: Service) -> None:
    assert get(service.port, "/health") == (200, {"status": "ok"})
    connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("HEAD", "/health")  # as load balancers ask
    assert connection.getresponse().status == 200


def test_a_text_has_the_entities_that_the_predictor_finds(
    service: Service, texts: list[str], expected: list[list[dict[str, Any]]]
) -> None:
    for text, entities in zip(texts[:8], expected[:8], strict=True):
        answer = ask(service.port, {"text": text})
        assert is_same(answer, entities)
        assert all(text[one["start"] : one["end"]] == one["surface"] for one in answer.body["entities"])


def test_several_texts_come_back_in_order(
    service: Service, texts: list[str], expected: list[list[dict[str, Any]]]
) -> None:
    answer = ask(service.port, {"texts": ["", *texts[:3]]})
    assert answer.status == 200
    first, *others = (result["entities"] for result in answer.body["results"])
    assert first == []
    assert [len(found) for found in others] == [len(entities) for entities in expected[:3]]
    assert ask(service.port, {"texts": []}).body == {"results": []}


def test_many_callers_at_once_lose_nothing(
    service: Service, texts: list[str], expected: list[list[dict[str, Any]]]
) -> None:
    answers = ask_all(service.port, texts * 3, clients=24)
    assert [is_same(answer, found) for answer, found in zip(answers, expected * 3, strict=True)] == [True] * 240


@pytest.fixture(scope="module")
def responses(service: Service) -> dict[str, Any]:
    """The responses in the schema of ``POST /predict``."""
    schema = get(service.port, "/openapi.json")[1]
    found: dict[str, Any] = schema["paths"]["/predict"]["post"]["responses"]
    return found


def post(port: int, body: bytes, *headers: str) -> Answer:
    """Send exactly these bytes and return the answer."""
    head = "\r\n".join(["POST /predict HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        answer, _, said = read_all(connection).partition(b"\r\n\r\n")
    return Answer(int(answer.split()[1]), json.loads(said), 0.0)


IS_JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("request_body", "status", "message"),
    [
        ({}, 422, 'give either "text"'),
        ({"text": "a", "texts": ["a"]}, 422, 'give either "text"'),
        ({"text": None, "texts": None}, 422, 'give either "text"'),
        ({"text": None}, 422, "text: Input should be a valid string"),
        ({"text": 1}, 422, "text: Input should be a valid string"),
        ({"texts": "a"}, 422, "texts: Input should be a valid list"),
        ({"texts": ["a", None]}, 422, "texts.1: Input should be a valid string"),
        ({"text": "a", "words": 1}, 422, "words: Extra inputs are not permitted"),
        ({"text": "a"} | dict.fromkeys("bcdefghijklm", 1), 422, "k: Extra inputs are not permitted; and 2 more"),
        ({"text": "a", "\ud800": 1}, 422, "unable to parse raw data as a unicode string"),
        ({"text": "ab\ud800"}, 422, "text: a lone surrogate at character 2"),
        ({"texts": ["\ud83d\ude00", "\udfff"]}, 422, "texts.1: a lone surrogate at character 0"),
        ([], 422, 'give either "text"'),
        (b"null", 422, 'give either "text"'),
        (b"1e999", 422, 'give either "text"'),
        (b"{", 400, "not JSON in UTF-8: Expecting property name enclosed in double quotes: line 1 column 2"),
        (b"", 400, "not JSON in UTF-8: Expecting value: line 1 column 1"),
        (b'{"text": "\xff"}', 400, "byte 0xff in position 10"),
        ('{"text": "a"}'.encode("utf-16"), 400, "byte 0xff in position 0"),
        ('{"text": "a"}'.encode("utf-16-le"), 400, "not JSON in UTF-8"),
        ('{"text": "a"}'.encode("utf-32"), 400, "byte 0xff in position 0"),
        (b'{"text": "\xed\xa0\xbd"}', 400, "byte 0xed in position 10"),
        (b"[" * 10_000, 400, "maximum recursion depth exceeded"),
        (b'{"a":' * 4000, 400, "maximum recursion depth exceeded"),
        (b"1" * 20_000, 400, "value has 20000 digits"),
        (b'{"text": -' + b"1" * 5_000 + b"}", 400, "value has 5000 digits"),
        (b'{"text": NaN}', 422, "text: Input should be a valid string"),
        (b'{"text": "a", "text": "b"}', 400, "a name appears twice"),
        ({"texts": ["a"] * 9}, 413, "9 texts; a request has at most 8"),
        ({"text": "a" * 2001}, 413, "2001 characters; a request has at most 2000"),
        ({"texts": ["a" * 1000] * 3}, 413, "3000 characters"),
        (b" " * 100_000, 413, "the body has more than 24576 bytes"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(
    service: Service, responses: dict[str, Any], request_body: Any, status: int, message: str
) -> None:
    answer = ask(service.port, request_body)
    assert message in answer.body["error"]
    assert answer.status == status
    assert_in_schema(answer, responses)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b'{"text": "a"}', ["Content-Type: application/x-www-form-urlencoded"], 415, "send JSON in UTF-8"),
        (b'{"text": "a"}', ["Content-Type: application/json; charset=latin-1"], 415, "send JSON in UTF-8"),
        (b'{"text": "a"}', [], 415, "send JSON in UTF-8"),
        (b'd\r\n{"text": "a"}\r\n0\r\n\r\n', [IS_JSON, CHUNKED, "Content-Length: 13"], 400, "exclude each other"),
        (b'{"text": "a"}', [IS_JSON, "Content-Length: 12", "Content-Length: 13"], 400, "Invalid HTTP request"),
        (b"", [IS_JSON, "Transfer-Encoding: gzip"], 400, "Invalid HTTP request"),
        (b"x\r\n", [IS_JSON, CHUNKED], 400, "Invalid HTTP request"),
        (b'{"text":', [IS_JSON, "Content-Length: 100"], 408, "no complete body within 3 seconds"),
    ],
)
def test_what_is_wrong_with_its_head_or_transfer_is_said(
    service: Service, responses: dict[str, Any], body: bytes, headers: list[str], status: int, message: str
) -> None:
    if not any(name.startswith(("Content-Length", "Transfer")) for name in headers):
        headers = [*headers, f"Content-Length: {len(body)}"]
    answer = post(service.port, body, *headers)
    assert (answer.status, message in answer.body["error"]) == (status, True), answer
    assert_in_schema(answer, responses)


def assert_in_schema(answer: Answer, responses: dict[str, Any]) -> None:
    schema = responses[str(answer.status)]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Error"}
    assert list(answer.body) == ["error"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'\xef\xbb\xbf{"text": "a"}', [IS_JSON, "Content-Length: 16"]),
        (b'{"text": "\\ud83d\\ude00"}', [IS_JSON + '; charset="UTF-8"', "Content-Length: 24"]),
        (b'd\r\n{"text": "a"}\r\n0\r\n\r\n', [IS_JSON, CHUNKED]),
    ],
)
def test_what_is_rare_but_right_is_answered(
    service: Service, responses: dict[str, Any], body: bytes, headers: list[str]
) -> None:
    answer = post(service.port, body, *headers)
    assert (answer.status, answer.body) == (200, {"entities": []})
    assert "200" in responses


def test_limits_are_reached_but_not_below(service: Service) -> None:
    assert ask(service.port, {"text": "😀" * 2000}).status == 200  # 24,000 bytes of escapes
    assert ask(service.port, {"texts": ["a" * 250] * 8}).status == 200


def test_other_paths_and_methods_are_refused_as_json(service: Service) -> None:
    assert get(service.port, "/nothing") == (404, {"error": "Not Found"})
    assert get(service.port, "/predict/") == (404, {"error": "Not Found"})
    assert get(service.port, "/predict") == (405, {"error": "Method Not Allowed"})


def test_callers_beyond_the_limit_are_sent_away_and_those_that_dawdle_are_ended(service: Service) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(begin_request(service.port)) for _ in range(LIMITS["max_requests"])]
        while (answer := ask(service.port, {"text": "a"})).status == 200:
            pass
        assert answer.status == 503
        assert "24 requests in progress" in answer.body["error"]
        assert get(service.port, "/health")[0] == 200
        for connection in held:
            reply = read_all(connection)
            assert reply.startswith(b"HTTP/1.1 408 ")
            assert b"no complete body within 3 seconds" in reply
    assert ask(service.port, {"text": "a"}).status == 200


def test_a_stopped_service_answers_what_it_has_begun(crf_run: FinishedRun) -> None:
    with running_service(crf_run.folder) as service:
        body = json.dumps({"text": "anna met bob"}).encode()
        with begin_request(service.port, len(body)) as connection, ThreadPoolExecutor(1) as pool:
            assert get(service.port, "/health")[0] == 200  # so the request before has been taken in
            service.process.send_signal(signal.SIGTERM)
            said = pool.submit(service.process.communicate)
            while True:
                try:
                    socket.create_connection(("127.0.0.1", service.port), timeout=1).close()
                except OSError:
                    break
            connection.sendall(body.removeprefix(b'{"text": '))
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")
            assert service.process.wait(30) == -signal.SIGTERM
            log = said.result(30)[1]
            assert log.index("warmed up") < log.index("running on") < log.index("Finished server process")


@pytest.mark.parametrize(
    "option",
    [
        *("max_texts=0", "max_texts=1.5", "max_characters=-1", "timeout=-1", "read_timeout=nan", "timeout=inf"),
        *("batch_timeout=-1", "max_batch_size=1e3", "max_requests=x", "workers=0", "port=99999", "host="),
        *("device=abacus", "dtype=fp8"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["serve_ner.py", "--model=nowhere", f"--{option}"])
    with pytest.raises(SystemExit):
        serve_ner.main()
    assert f"serve_ner.py: error: --{option.replace('=', ' ')}: " in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["serve_ner.py", "--model=nowhere"])
    with pytest.raises(SystemExit, match=r"no such folder: .*nowhere; name the output_dir of a run"):
        run_script(serve_ner.main)
