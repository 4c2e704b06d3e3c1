"""Decoding of UTF-8 and CESU-8 to numbered lines, with a conversion command in the error for other encodings."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from shlex import quote

from processors.examples import DataError, Findings

_BINARY = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive or an Office document",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "a 7z archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
}
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
# Bytes of common characters per encoding: level 1 of GB 2312 and Big5, kana and level 1 of JIS. Korean is left out,
# because a few words in EUC-KR cannot be distinguished from GB 18030.
_COMMON = {
    "GB18030": ("gb18030", rb"(?:[\xb0-\xd7][\xa1-\xfe]|[\xa1-\xa3][\xa1-\xfe])+"),
    "BIG5": ("big5", rb"(?:[\xa4-\xc6][\x40-\x7e\xa1-\xfe]|\xa1[\x40-\x7e\xa1-\xfe])+"),
    "SHIFT_JIS": ("cp932", rb"(?:[\x82\x83][\x40-\xf1]|\x81[\x40-\xac]|[\x88-\x97][\x40-\xfc])+"),
}
_LINES_TO_GUESS_FROM = 1000


def read_lines(path: Path, findings: Findings | None = None) -> Iterator[tuple[int, str]]:
    """Yield numbered lines of a UTF-8 file, without byte order mark and line ends.

    Raises:
        DataError: the file is missing, or has lines that are not UTF-8.
    """
    if not path.is_file():
        raise DataError("there is no such file", path)
    with path.open("rb") as file:
        for number, line in decoded_lines(file, path, findings=findings):
            yield number, line.rstrip("\r\n")


def decoded_lines(
    file: Iterable[bytes],
    source: str | Path,
    replace: bool = False,
    advice: str = "",
    findings: Findings | None = None,
) -> Iterator[tuple[int, str]]:
    """Yield numbered lines of UTF-8 with their line ends; only a byte order mark is removed.

    Args:
        file: lines of bytes.
        source: name for messages.
        replace: whether to replace bytes that are not UTF-8 by U+FFFD.
        advice: further advice for the error message.
        findings: counts CESU-8 characters and lone surrogates.

    Raises:
        DataError: a line is not UTF-8; the message counts the others and names the likely encoding.
    """
    lines = enumerate(file, start=1)
    for number, raw in lines:
        try:
            line = decoded(raw, findings)
        except UnicodeDecodeError:
            if not replace:
                raise _encoding_error(chain([(number, raw)], lines), source, advice) from None
            line = raw.decode("utf-8", "replace")
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def decoded(raw: bytes, findings: Findings | None = None) -> str:
    """Decode UTF-8 or CESU-8, which encodes emoji as two surrogates; lone surrogates become U+FFFD.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        try:
            halves = raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise error from None
    joined = halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    findings = findings or Findings()
    findings.add("characters written as two surrogates (CESU-8), joined", count=len(halves) - len(joined))
    lone = joined.count("\ufffd") - halves.count("\ufffd")
    findings.add("lone surrogates, replaced by U+FFFD", count=lone)
    return joined


def decoded_text(raw: bytes, source: Path, findings: Findings | None = None) -> str:
    """Decode a whole file, keeping its byte order mark and line ends.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return decoded(raw, findings)
    except UnicodeDecodeError:
        raise _encoding_error(enumerate(raw.splitlines(keepends=True), start=1), source) from None


def _encoding_error(lines: Iterable[tuple[int, bytes]], source: str | Path, advice: str = "") -> DataError:
    """Error with the lines that are not UTF-8, the likely encoding, and the command to convert it."""
    bad = 0
    sample: list[tuple[int, bytes, UnicodeDecodeError]] = []
    for number, raw in lines:
        try:
            decoded(raw)
        except UnicodeDecodeError as error:
            bad += 1
            if len(sample) < _LINES_TO_GUESS_FROM:
                sample.append((number, raw, error))
    first, raw, place = sample[0]
    for start, kind in _BINARY.items():
        if first == 1 and raw.startswith(start):
            return DataError(f"not text but {kind}; unpack it or export it as text", source)
    found = raw[place.start : place.start + 8].hex(" ")
    others = ", ".join(str(number) for number, *_ in islice(sample, 1, 10))
    others += f" and {bad - 10} more" if bad > 10 else ""
    message = f"not UTF-8 (bytes {found} at column {place.start}" + (f"; also lines {others})" if others else ")")
    encoding = _likely_encoding(b"".join(raw for _, raw, _ in sample), is_start=first == 1)
    message += f"; it looks like {encoding}: iconv -f {encoding} -t UTF-8 {quote(str(source))} > converted.txt"
    return DataError(f"{message}; {advice}" if advice else message, source, first)


def _likely_encoding(raw: bytes, is_start: bool) -> str:
    """The iconv name of the most likely encoding of these bytes."""
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if is_start and raw.startswith(mark)), None)
    if marked:
        return marked
    if b"\0" in raw:
        return "UTF-16LE" if raw[1::2].count(0) >= raw[::2].count(0) else "UTF-16BE"
    high = sum(byte > 127 for byte in raw)
    shares = {}
    for name, (codec, pattern) in _COMMON.items():
        try:
            raw.decode(codec)
        except UnicodeDecodeError:
            continue
        shares[name] = sum(byte > 127 for run in re.findall(pattern, raw) for byte in run) / high
    best = max(shares, key=lambda name: shares[name], default="")
    lonely = len(re.findall(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])", raw))
    if best and shares[best] > 0.5 and lonely < high / 2:
        return best
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "WINDOWS-1252"
