"""Builds the package `chaincrf`; compiles its C++ if there is a compiler, so that it need not be at first use."""

import importlib.util
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithLibrary(build_py):  # type: ignore[misc]
    def run(self) -> None:
        super().run()
        spec = importlib.util.spec_from_file_location("library", HERE / "cpu" / "library.py")
        assert spec is not None
        assert spec.loader is not None
        library = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(library)
        try:
            library.build_in(Path(self.build_lib, "chaincrf", "cpu"))
        except library.CannotBuildError as error:
            self.warn(f"crf.cpp is not compiled ({error}): at first use, another attempt is made")


class Compiled(Distribution):  # type: ignore[misc]
    """A wheel that is only for this platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildWithLibrary}, distclass=Compiled)
