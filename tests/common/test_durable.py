"""Atomic writing of folders and files."""

import itertools
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import common.durable
from common.durable import atomic_files, atomic_write, remove_folder, tidy


def write(folder: Path, text: str) -> None:
    with atomic_write(folder, "replace") as fresh:
        fresh.mkdir()
        (fresh / "weights").write_text(text)
        (fresh / "deeper").mkdir()
        (fresh / "deeper" / "more").write_text(text)


def content(parent: Path) -> dict[str, str]:
    return {str(path.relative_to(parent)): path.read_text() for path in parent.rglob("*") if path.is_file()}


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write(tmp_path / "best", text)
        assert content(tmp_path) == {"best/weights": text, "best/deeper/more": text}


def write_half(folder: Path) -> None:
    with atomic_write(folder, "replace") as fresh:
        fresh.mkdir()
        (fresh / "weights").write_text("ne")
        raise OSError("disk full")


def test_what_fails_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "best", "old")
    with pytest.raises(OSError, match="disk full"):
        write_half(tmp_path / "best")
    assert content(tmp_path) == {"best/weights": "old", "best/deeper/more": "old"}


class Killed(BaseException):
    """Nothing runs after it, as after kill -9."""


def killed_at(call: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Die at the n-th file operation; returns the operations that were done."""
    done: list[str] = []

    def dying(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def act(*arguments: object, **options: object) -> object:
            if len(done) >= call:
                raise Killed
            done.append(name)
            return original(*arguments, **options)

        return act

    changes = (
        (Path, "rename"),
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (shutil, "rmtree"),
        (os, "fsync"),
    )
    for owner, name in changes:
        monkeypatch.setattr(owner, name, dying(name, getattr(owner, name)))
    return done


def outcomes_of_kills(
    parent: Path, prepare: Callable[[], None], act: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, str]]:
    """The content after tidying up, for a kill at each operation in turn."""
    outcomes = []
    for call in itertools.count():
        shutil.rmtree(parent, ignore_errors=True)
        prepare()
        with monkeypatch.context() as patched:
            killed_at(call, patched)
            try:
                act()
            except Killed:
                ended = False
            else:
                ended = True
        tidy(parent)
        outcomes.append(content(parent))
        if ended:
            return outcomes
    raise AssertionError


def test_a_kill_at_any_instant_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = tmp_path / "run" / "best"
    outcomes = outcomes_of_kills(best.parent, lambda: write(best, "old"), lambda: write(best, "new"), monkeypatch)
    whole = [{f"best/{name}": text for name in ("weights", "deeper/more")} for text in ("old", "new")]
    assert len(outcomes) > 8
    assert all(outcome in whole for outcome in outcomes)
    assert [outcomes[0], outcomes[-1]] == whole


def write_file(path: Path, text: str) -> None:
    with atomic_write(path) as fresh:
        fresh.write_text(text)


def test_a_kill_at_any_instant_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "last.ckpt"

    def prepare() -> None:
        path.parent.mkdir()
        write_file(path, "old")

    outcomes = outcomes_of_kills(path.parent, prepare, lambda: write_file(path, "new"), monkeypatch)
    assert outcomes == [{"last.ckpt": text} for text in ("old", "old", "old", "new", "new")]


def test_a_kill_while_removing_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run" / "checkpoint-3"
    outcomes = outcomes_of_kills(
        folder.parent, lambda: write(folder, "old"), lambda: remove_folder(folder), monkeypatch
    )
    assert outcomes == [{"checkpoint-3/weights": "old", "checkpoint-3/deeper/more": "old"}, {}, {}]


def test_a_file_is_synced_before_its_folder_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        done = killed_at(1000, patched)
        write(tmp_path / "best", "new")
    assert done.index("rename") > done.index("fsync")
    assert done[: done.index("rename")].count("fsync") == 4  # two files and their folders
    assert done[-1] == "fsync"  # the parent


def test_published_files_replace_those_of_the_same_names_the_last_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = tmp_path / "folder", ("config.json", "model.safetensors", "vocab.txt")
    folder.mkdir()
    for name in names:
        (folder / name).write_text("old")
    (folder / "run.log").write_text("kept")
    order: list[str] = []
    original = Path.replace

    def replace(path: Path, target: Path) -> Path:
        order.append(path.name)
        return original(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with atomic_files(folder, last="config.json") as fresh:
        for name in names:
            (fresh / name).write_text("new")
    assert order == ["model.safetensors", "vocab.txt", "config.json"]
    assert content(folder) == {**dict.fromkeys(order, "new"), "run.log": "kept"}


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_folder(tmp_path / "nothing")
    tidy(tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_refused_or_kept(tmp_path: Path) -> None:
    write(tmp_path / "cache", "old")
    with pytest.raises(FileExistsError, match="cache already exists"), atomic_write(tmp_path / "cache"):
        pass
    with atomic_write(tmp_path / "cache", "keep") as fresh:
        fresh.mkdir()
        (fresh / "weights").write_text("new")
    assert content(tmp_path) == {"cache/weights": "old", "cache/deeper/more": "old"}


def test_writers_of_the_same_text_at_once_all_succeed(tmp_path: Path) -> None:
    path, text = tmp_path / "new" / "a.json", "x" * 100_000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_file(path, text), range(100)))
    assert content(tmp_path) == {"new/a.json": text}


def test_what_others_hid_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".mine.old").mkdir()
    (tmp_path / ".theirs.new").mkdir()
    for name in (".mine.old/notes", ".bashrc.old", ".checkpoint-3.put-aside"):
        (tmp_path / name).write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    tidy(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_on_windows_folders_are_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "fsync", synced.append)
    common.durable._sync(tmp_path)
    assert synced == []
