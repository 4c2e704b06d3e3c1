"""The compiled `crf.cpp`: built at first use, in about a second, and kept in a folder of the user.

Several processes that need it at once wait for the first of them. The folder is $BERT_CRF_CACHE, or `bert-crf` in the
user's cache; where neither can be written to, each process builds for itself.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

logger = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("crf.cpp")
FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC")
LOCK_SECONDS = 60.0  # after which a process no longer waits for another one


class CannotBuildError(ImportError):
    """There is no compiler that makes a library of the source."""


@functools.cache
def load() -> ctypes.CDLL:
    """The library, built if need be.

    Raises:
        CannotBuildError: no compiler was found, or none succeeded.
    """
    for library in SOURCE.parent.glob(f"crf-{_digest()}-*.so"):  # was built with the package
        return ctypes.CDLL(str(library))
    try:
        folder = cache_folder()
        if not _compilers():
            for library in folder.glob(f"crf-{_digest()}-*.so"):  # was built where there is a compiler
                return ctypes.CDLL(str(library))
        return ctypes.CDLL(str(build_in(folder)))
    except CannotBuildError:
        raise
    except (OSError, RuntimeError) as error:  # no home, no right to write, no locks on this file system, a lock held
        logger.warning("The compiled CRF cannot be cached, so each process compiles it again: %s", error)
    with tempfile.TemporaryDirectory() as temporary:
        return ctypes.CDLL(str(build_in(Path(temporary))))


def cache_folder() -> Path:
    """Where libraries are kept."""
    if named := os.environ.get("BERT_CRF_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bert-crf"


def build_in(folder: Path) -> Path:
    """The library in a folder, compiled if it is not there.

    Raises:
        CannotBuildError: no compiler was found, or none succeeded.
    """
    failures = []
    for compiler in _compilers():
        try:
            version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
            library = folder / f"crf-{_digest()}-{hashlib.sha256(version).hexdigest()[:8]}.so"
            if not library.exists():
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(library.with_suffix(".lock"), timeout=LOCK_SECONDS):
                    if not library.exists():
                        _build(library, compiler)
        except subprocess.CalledProcessError as error:
            failures.append(f"{shlex.join(compiler)}: {error.stderr.decode(errors='replace').strip()[-500:]}")
            continue
        return library
    raise CannotBuildError("; ".join(failures) or "no C++ compiler was found")


def _build(library: Path, compiler: list[str]) -> None:
    """Compile under a temporary name, so that other processes never load an unfinished library."""
    logger.info("Compiling the CRF, once: %s", library)
    unfinished = library.with_suffix(f".{os.getpid()}")
    try:
        subprocess.run([*compiler, *_flags(), str(SOURCE), "-o", str(unfinished)], capture_output=True, check=True)
        unfinished.replace(library)
    finally:
        unfinished.unlink(missing_ok=True)


def _compilers() -> list[list[str]]:
    """The commands of all compilers, the preferred first."""
    named = [shlex.split(os.environ["CXX"])] if os.environ.get("CXX") else []
    found = [command for command in (*named, ["c++"], ["g++"], ["clang++"]) if shutil.which(command[0])]
    if find_spec("ziglang"):
        found.append([sys.executable, "-m", "ziglang", "c++"])
    return found


def _flags() -> list[str]:
    """What the compiler is told: also to use the instructions of x86 processors since 2013, where this one has them."""
    info = Path("/proc/cpuinfo")
    known = set(info.read_text().split()) if info.exists() and platform.machine() in ("x86_64", "AMD64") else set()
    return [*FLAGS, *(["-mavx2", "-mfma"] if {"avx2", "fma"} <= known else [])]


def _digest() -> str:
    """Of the source and the flags."""
    return hashlib.sha256(b"".join([SOURCE.read_bytes(), *map(str.encode, _flags())])).hexdigest()[:16]
