"""Texts as they come from files, streams and archives."""

import gzip
import io
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from processors.examples import DataError
from processors.text.text_files import RawText, read_texts


def written(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def texts_of(*sources: str, whole_files: bool = False, replace: bool = False) -> list[str]:
    return [item.text for item in read_texts(sources, whole_files, replace)]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a"])
def test_every_line_is_a_text_and_otherwise_untouched(tmp_path: Path, name: str) -> None:
    lines = ["\ufeffanna ", "", "\tbob\u2028\x0b\x00", "cr\rinside", "e\u0301"]
    path = written(tmp_path / name, "\r\n".join(lines).encode())
    assert [item.id for item in read_texts([path])] == [f"{path}:{number}" for number in range(1, 6)]
    assert texts_of(path) == ["anna ", *lines[1:]]


def test_a_file_can_be_one_text(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"anna\r\nmet\nbob\n")
    assert list(read_texts([path], whole_files=True)) == [RawText(path, "anna\r\nmet\nbob\n")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_keep_their_ids(tmp_path: Path, name: str) -> None:
    records = [{"id": 7, "text": "a\nb"}, {"text": "c", "more": []}]
    path = written(tmp_path / name, b"\n".join(json.dumps(record).encode() for record in records) + b"\n\n")
    assert list(read_texts([path], whole_files=True)) == [RawText(7, "a\nb"), RawText(f"{path}:2", "c")]


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"txt": "a"}', b'{"text": 3}', b"[" * 100_000, b'{"text": "a", "id": ' + b"1" * 5000 + b"}"]
)
def test_a_broken_json_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "a"}\n' + line)
    with pytest.raises(DataError, match=r"a\.jsonl:2: "):
        texts_of(path)


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"anna\nb\xffb\n")
    for whole in (False, True):
        with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8 \(bytes ff 62 0a at column 1\)"):
            texts_of(path, whole_files=whole)


def test_bytes_that_are_not_utf8_are_replaced_when_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "a.txt", b"anna\nb\xffb\n")
    with caplog.at_level(logging.WARNING):
        assert texts_of(path, replace=True) == ["anna", "b\ufffdb"]
    assert "1 texts contain U+FFFD" in caplog.text


def test_the_standard_input_is_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("anna\n你好".encode())))
    assert list(read_texts(["-"])) == [RawText("stdin:1", "anna"), RawText("stdin:2", "你好")]


def test_what_is_no_archive_and_what_ends_early_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"anna\n" * 1000)
    for name, content in {"none.gz": b"anna", "cut.gz": whole[:-12], "spoilt.gz": whole[:20] + b"\xff" * 20}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}:\d+: cannot be read"):
            texts_of(str(tmp_path / name))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: there is no such file"):
        texts_of(str(tmp_path / "none.txt"))
