"""What processes tell each other, and that they fail together."""

import time
from pathlib import Path

import pytest
import torch

from tests.tools.ranks import on_ranks
from tools.command_line import parse_settings
from tools.distributed import (
    MainProcessError,
    any_rank,
    gather_to_main,
    is_main,
    leave_process_group,
    main_process_first,
    rank,
    run_on_main,
    send_from_main,
    setup_devices,
    sum_over_ranks,
    wait_for_the_end_of_main,
    world_size,
)
from tools.settings import MachineSettings


def test_one_process_is_the_main_one() -> None:
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    any_rank(False)
    leave_process_group()


def test_one_process_talks_to_itself() -> None:
    assert sum_over_ranks(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert (any_rank(True), any_rank(False)) == (True, False)
    assert gather_to_main("own") == ["own"]
    assert run_on_main(lambda: 3) == 3


def test_without_a_launcher_one_process_takes_the_cpu() -> None:
    assert setup_devices(MachineSettings(no_cuda=True)) == (torch.device("cpu"), 0)


@pytest.mark.parametrize("flag", ["--local_rank=0", "--local-rank=0"])
def test_a_local_rank_is_read_in_both_spellings_and_refused_without_a_launcher(flag: str) -> None:
    settings = parse_settings(argv=[flag, "--no_cuda"])
    with pytest.raises(ValueError, match=r"--local_rank is for torch\.distributed\.launch; .* torchrun"):
        setup_devices(settings.machine)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="local rank 2 has no GPU: 2 visible"):
        setup_devices(MachineSettings())


def talk() -> dict[str, object]:
    tensor = torch.tensor([rank() + 1.0])
    send_from_main([sent := torch.tensor([float(rank())])])
    return {
        "sum": sum_over_ranks(tensor).item(),
        "sent": sent.item(),
        "any": (any_rank(rank() == 2), any_rank(False)),
        "gathered": gather_to_main(f"of {rank()}"),
        "on main": run_on_main(lambda: f"by {rank()}"),
    }


def test_three_processes_talk() -> None:
    first, *others = on_ranks(3, talk)
    common = {"sum": 6.0, "sent": 0.0, "any": (True, False), "on main": "by 0"}
    assert first == {**common, "gathered": ["of 0", "of 1", "of 2"]}
    assert others == [{**common, "gathered": []}] * 2


def find_what_main_left(folder: Path) -> bool:
    with main_process_first():
        found = (folder / "cache").exists()
        (folder / "cache").touch()
    return found


def test_the_others_find_what_the_main_process_left(tmp_path: Path) -> None:
    assert on_ranks(3, find_what_main_left, tmp_path) == [False, True, True]


def fail_first() -> None:
    with main_process_first():
        fail()


def fail() -> None:
    raise KeyError("disk full")


def fail_alone() -> None:
    run_on_main(fail)


def leave_early() -> None:
    run_on_main(lambda: exit(3))


def failures() -> list[tuple[str, str, int]]:
    """How the functions above fail, and that the processes still understand each other after each."""
    found = []
    for fails in (fail_first, fail_alone, leave_early):
        try:
            fails()
        except BaseException as error:
            found.append((type(error).__name__, str(error), int(sum_over_ranks(torch.ones(1)))))
    return found


def test_the_failure_of_the_main_process_reaches_all() -> None:
    main, *others = on_ranks(3, failures)
    expected = [("KeyError", "disk full"), ("KeyError", "disk full"), ("SystemExit", "3")]
    assert len(main) == len(expected)
    for number, (error, told) in enumerate(expected):
        raised, _, size = main[number]
        assert (raised, size) == (error, 3)
        for other in others:
            assert (other[number][0], other[number][2]) == (MainProcessError.__name__, 3)
            assert f"rank 0 failed: {error}: " in other[number][1]
            assert told in other[number][1]


def wait_for_the_leaving() -> str:
    if not is_main():
        wait_for_the_end_of_main()
    return "done"


def test_waiting_ends_when_the_main_process_leaves() -> None:
    assert on_ranks(3, wait_for_the_leaving) == ["done"] * 3


def come_late() -> str:
    if rank() == 1:
        time.sleep(1.5)
        return "late"
    try:
        any_rank(False)
    except RuntimeError as error:
        return str(error)
    return "met"


def test_nobody_waits_longer_than_the_time_out() -> None:
    first, _ = on_ranks(2, come_late, ddp_timeout=1)
    assert "Timed out waiting 1000ms" in first


def test_denormal_numbers_are_zero_in_a_training() -> None:
    """Such numbers come up in the momentum of embeddings, and slow the optimiser down."""
    torch.set_flush_denormal(False)
    tiny = torch.tensor([1e-40])
    assert (tiny * 1).item() > 0
    setup_devices(MachineSettings(no_cuda=True))
    assert (tiny * 1).item() == 0
