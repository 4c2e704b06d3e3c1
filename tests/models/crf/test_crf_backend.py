"""Which backend computes, and how its library is built, by a compiler that hands out the one that exists."""

import logging
import stat
import sys
import threading
from pathlib import Path

import pytest
import torch

from models.crf import backend
from models.crf.cpu import CppBackend, library
from models.crf.torch_backend import TorchBackend

BUILT = library.load()._name
COPYING = f'echo building >> "$(dirname $0)/calls"; sleep 0.3; for last; do true; done; cp {BUILT} "$last"'
FAILING = "echo no such header >&2; exit 1"


def write_compiler(path: Path, script: str, version: str = "1") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\n[ "$1" = --version ] && echo {version} && exit\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of compilers; there are no others, and nothing is built yet."""
    for name in ("CXX", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BERT_CRF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def calls(folder: Path) -> int:
    return (folder / "calls").read_text().count("building") if (folder / "calls").exists() else 0


def libraries() -> list[Path]:
    return list(library.cache_folder().glob("*.so"))


build = library.load.__wrapped__


def test_the_library_is_built_once(folder: Path) -> None:
    write_compiler(folder / "c++", COPYING)
    for _ in range(2):
        assert build().crf_sweep_float32
    assert (calls(folder), len(libraries())) == (1, 1)
    assert not list(library.cache_folder().glob("*.[0-9]*"))  # nothing unfinished


def test_all_that_need_it_at_once_wait_for_one(folder: Path) -> None:
    write_compiler(folder / "c++", COPYING)
    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (calls(folder), len(libraries())) == (1, 1)


def test_another_compiler_builds_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compiler(folder / "g++", COPYING)
    build()
    monkeypatch.setenv("CXX", str(write_compiler(folder / "mine", COPYING, version="2")))
    build()
    assert (calls(folder), len(libraries())) == (2, 2)


def test_other_source_or_flags_build_their_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compiler(folder / "clang++", COPYING)
    build()
    monkeypatch.setattr(library, "_flags", lambda: [*library.FLAGS, "-mno-such-thing"])
    build()
    (tmp_path / "crf.cpp").write_text("int edited;")
    monkeypatch.setattr(library, "SOURCE", tmp_path / "crf.cpp")
    build()
    assert (calls(folder), len(libraries())) == (3, 3)


def test_the_compiler_of_a_package_serves_as_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compiler(folder / "python", COPYING)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(library, "find_spec", lambda name: name == "ziglang" or None)
    write_compiler(folder / "c++", FAILING)
    assert library._compilers() == [["c++"], [str(folder / "python"), "-m", "ziglang", "c++"]]


def test_a_compiler_that_fails_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(write_compiler(folder / "broken", FAILING)))
    write_compiler(folder / "c++", COPYING)
    assert build().crf_sweep_float32


def test_without_a_compiler_a_library_that_is_there_serves(folder: Path) -> None:
    write_compiler(folder / "c++", COPYING)
    build()
    (folder / "c++").unlink()
    assert build().crf_sweep_float32
    assert calls(folder) == 1


def test_without_a_place_for_it_the_library_is_built_each_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_compiler(folder / "c++", COPYING)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BERT_CRF_CACHE", str(tmp_path / "file"))
    assert build().crf_sweep_float32
    assert "cannot be cached, so each process compiles it again" in caplog.text
    assert str(tmp_path / "file") in caplog.text


def test_a_user_without_a_home_builds_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_compiler(folder / "c++", COPYING)
    monkeypatch.delenv("BERT_CRF_CACHE")

    def refuse() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", refuse)
    assert build().crf_sweep_float32
    assert "each process compiles it again: Could not determine home directory" in caplog.text


def test_what_is_no_library_is_not_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_compiler(folder / "c++", COPYING)
    build()
    (found,) = libraries()
    monkeypatch.setenv("BERT_CRF_CACHE", str(tmp_path))
    (tmp_path / found.name).write_bytes(b"cut off")
    assert build().crf_sweep_float32
    assert "each process compiles it again" in caplog.text


def test_the_cache_is_that_of_the_user(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("BERT_CRF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library.cache_folder() == tmp_path / "bert-crf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert library.cache_folder() == Path.home() / ".cache" / "bert-crf"


@pytest.mark.parametrize(("script", "cause"), [(FAILING, "c++: no such header"), (None, "no C++ compiler was found")])
def test_plain_torch_computes_where_nothing_can_be_built(
    folder: Path, script: str | None, cause: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if script is not None:
        write_compiler(folder / "c++", script)
    monkeypatch.setattr(library, "load", build)
    monkeypatch.setattr(backend, "_load", backend._load.__wrapped__)
    backend._fastest.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert isinstance(backend.backend_for(torch.device("cpu"), 3), TorchBackend)
    finally:
        backend._fastest.cache_clear()
    (warning,) = caplog.messages
    assert cause in warning
    assert "Install a C++ compiler (for instance `apt install g++` or `pip install ziglang`)" in warning


def test_compiled_code_computes_on_a_cpu() -> None:
    assert isinstance(backend.backend_for(torch.device("cpu"), 3), CppBackend)
