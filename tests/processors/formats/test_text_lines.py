"""Lines of UTF-8, of CESU-8, and of other encodings, which are refused with a command that converts them."""

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from processors.examples import DataError, Findings
from processors.formats.text_lines import read_lines

CHINESE = "我爱北京天安门，李明在上海交通大学学习。\n"
TRADITIONAL = "我愛北京，他們在臺灣大學學習計算機科學。\n"
JAPANESE = "私は東京都に住んでいます。カタカナも書きます。\n"
GERMAN = "Müller sagte, Köln sei schön.\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a file.txt"


def test_lines_end_at_newlines_only(path: Path) -> None:
    path.write_bytes("\ufeffa\u2028b\x85c\rd\r\n\ne".encode())
    assert list(read_lines(path)) == [(1, "a\u2028b\x85c\rd"), (2, ""), (3, "e")]


def test_surrogates_in_utf8_are_joined_or_replaced_and_counted(path: Path) -> None:
    path.write_bytes(b"a \xed\xa0\xbd\xed\xb8\x80\xed\xa0\xbd\xed\xb8\x80 b\nc \xed\xa0\xbd d\n\xf0\x9f\x98\x80\n")
    findings = Findings()
    assert [line for _, line in read_lines(path, findings)] == ["a 😀😀 b", "c \ufffd d", "😀"]
    assert findings.counts == {
        "characters written as two surrogates (CESU-8), joined": 2,
        "lone surrogates, replaced by U+FFFD": 1,
    }


@pytest.mark.skipif(shutil.which("iconv") is None, reason="iconv is not installed")
@pytest.mark.parametrize(
    ("text", "codec", "named"),
    [
        (CHINESE, "gbk", "GB18030"),
        ("ok\n" + CHINESE, "gb18030", "GB18030"),
        ("我 O\n", "gbk", "GB18030"),
        (TRADITIONAL, "big5", "BIG5"),
        (JAPANESE, "shift_jis", "SHIFT_JIS"),
        (GERMAN, "latin-1", "WINDOWS-1252"),
        ("élan “vital” — oui\n", "cp1252", "WINDOWS-1252"),
        ("Köln\n\x81\n", "latin-1", "ISO-8859-1"),
        (CHINESE, "utf-16", "UTF-16"),
        (GERMAN, "utf-32", "UTF-32"),
        (GERMAN, "utf-16-le", "UTF-16LE"),
        (GERMAN, "utf-16-be", "UTF-16BE"),
    ],
)
def test_another_encoding_is_refused_with_a_command_that_works(
    path: Path, text: str, codec: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(text.encode(codec))
    with pytest.raises(DataError, match=f"not UTF-8 .* looks like {named}: iconv -f {named} ") as caught:
        list(read_lines(path))
    command = str(caught.value).partition("looks like ")[2].partition(": ")[2]
    assert shlex.split(command)[-2:] == [">", "converted.txt"]
    monkeypatch.chdir(path.parent)
    subprocess.run(command, shell=True, check=True)
    assert Path("converted.txt").read_text("utf-8") == text


def test_all_lines_that_are_not_utf8_are_named_at_once(path: Path, at: Callable[..., str]) -> None:
    path.write_bytes("我 O\n爱 O\n".encode() + "我 O\n".encode("gbk") * 20)
    said = ("not UTF-8", "ce d2", "column 0", "also lines 4, 5, 6, 7, 8, 9, 10, 11, 12 and 10 more")
    with pytest.raises(DataError, match=at(path, 3, *said)):
        list(read_lines(path))


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"PAR1\x15\xff", "a Parquet file"), (b"PK\x03\x04\xff", "a zip archive"), (b"\x1f\x8b\x08", "gzip")],
)
def test_a_binary_file_is_named(path: Path, content: bytes, kind: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"not text but {kind}"):
        list(read_lines(path))
