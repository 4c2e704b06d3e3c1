"""Events are read as TensorBoard would read them."""

from pathlib import Path

from tensorboardX import SummaryWriter

from analysis.report.run_data import read_scalars


def write_events(folder: Path, suffix: str, values: dict[int, float]) -> None:
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for step, value in values.items():
            writer.add_scalar("loss", value, step)
        writer.add_text("note", "not a scalar", 1)


def test_the_scalars_of_all_files_are_read_and_nothing_else(tmp_path: Path) -> None:
    write_events(tmp_path, ".0", {1: 0.5, 2: 0.25})
    write_events(tmp_path, ".2", {3: 0.125})
    assert read_scalars(tmp_path) == {"loss": {1: 0.5, 2: 0.25, 3: 0.125}}


def test_what_a_killed_run_left_half_written_is_left_out(tmp_path: Path) -> None:
    write_events(tmp_path, ".0", {1: 0.5, 2: 0.25})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_scalars(tmp_path).get("loss", {}) in ({}, {1: 0.5}, {1: 0.5, 2: 0.25})
