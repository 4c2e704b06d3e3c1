"""Where log messages go."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from common.log import console, setup_logging

ROOT = Path(__file__).parent.parent.parent


def say(logger: str) -> None:
    for level in (logging.INFO, logging.WARNING):
        logging.getLogger(logger).log(level, "%s of %s", logging.getLevelName(level), logger)


def test_our_messages_go_to_terminal_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path)
    for name in ("tools.train", "callbacks.monitors", "processors.corpus", "models.tagger"):
        say(name)
        for text in (capsys.readouterr().err, (tmp_path / "run.log").read_text("utf-8")):
            assert text.count(f"INFO of {name}") == 1
            assert text.count(f"WARNING of {name}") == 1


def test_libraries_are_heard_from_warnings_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path)
    say("some.library")
    shown = capsys.readouterr().err
    assert "WARNING of some.library" in shown
    assert "INFO of some.library" not in shown


def test_other_ranks_report_warnings_only_and_write_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path, is_main=False)
    say("tools.train")
    shown = capsys.readouterr().err
    assert "WARNING of tools.train" in shown
    assert "INFO of tools.train" not in shown
    assert not list(tmp_path.iterdir())


def test_a_second_set_up_does_not_double_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path)
    setup_logging(tmp_path)
    say("tools.train")
    assert capsys.readouterr().err.count("INFO of tools.train") == 1


def test_a_closed_pipe_does_not_stop_the_program(tmp_path: Path) -> None:
    program = f"""
import logging, pathlib, common.log
folder = pathlib.Path({str(tmp_path)!r})
common.log.setup_logging(folder)
logging.getLogger("tools").info("x")
(folder / "done").touch()
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stderr is not None
        process.stderr.close()
    assert (tmp_path / "done").exists()
    assert "x" in (tmp_path / "run.log").read_text("utf-8")


def test_a_later_run_adds_to_the_log(tmp_path: Path) -> None:
    for text in ("first", "second"):
        setup_logging(tmp_path)
        logging.getLogger("tools").info(text)
    log = (tmp_path / "run.log").read_text("utf-8")
    assert "first" in log
    assert "second" in log


def test_the_file_name_suits_every_system(tmp_path: Path) -> None:
    setup_logging(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.log"]


def test_tables_in_a_file_are_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("[bold]x[/bold] " * 60)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) <= 100
