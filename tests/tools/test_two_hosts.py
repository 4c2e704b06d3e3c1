"""A launcher on each of two hosts, which reach each other by their addresses only."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.helpers import write_corpus
from tests.tools.hosts import ADDRESSES, INTERFACE, two_hosts
from tests.tools.launched import Launched
from tests.tools.runs import call_script, encoder_without_dropout, largest_difference, options_of_run, read_predictions

pytestmark = pytest.mark.slow
PORT = 29400


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[list[str]]]:
    with two_hosts() as prefixes:
        yield prefixes


@pytest.fixture(scope="module")
def options(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("two_hosts")
    write_corpus(home / "corpus", {"train": 60, "dev": 21, "test": 21})
    actions = {"do_train": True, "from_scratch": True, "do_eval": True, "do_predict": True}
    lengths = {"eval_max_seq_length": 12, "max_steps": 10, "log_loss_steps": 1}
    encoder = encoder_without_dropout(encoder, home / "encoder")
    return {**options_of_run(encoder, home / "corpus", home), **actions, **lengths}


@pytest.fixture(scope="module")
def alone(options: dict[str, Any]) -> Path:
    """One process with the global batch of the others."""
    call_script("run_ner_crf", **{**options, "per_gpu_train_batch_size": 8})
    return Path(options["output_dir"])


def launch(hosts: list[list[str]], processes_per_host: int, options: dict[str, Any]) -> list[Launched]:
    """``torch.distributed.launch`` on both hosts."""
    launched = []
    for node, prefix in enumerate(hosts):
        meeting = [f"--master_addr={ADDRESSES[0]}", f"--master_port={PORT}"]
        nodes = ["--nnodes=2", f"--node_rank={node}", f"--nproc_per_node={processes_per_host}"]
        command = ["-m", "torch.distributed.launch", *nodes, *meeting, "run_ner_crf.py"]
        launched.append(Launched(command, prefix, {"GLOO_SOCKET_IFNAME": INTERFACE}, **options))
    return launched


def test_two_processes_on_each_of_two_hosts_train_and_predict_as_one_process(
    hosts: list[list[str]], options: dict[str, Any], alone: Path
) -> None:
    folder = alone.parent / "together"
    for launched in launch(hosts, 2, {**options, "per_gpu_train_batch_size": 2, "output_dir": folder}):
        code, printed = launched.end()
        assert code == 0, printed
    weights = [load_file(one / "model.safetensors") for one in (alone, folder)]
    assert largest_difference(*weights) < 1e-4
    tags = [[line["tags"] for line in read_predictions(one)] for one in (alone, folder)]
    assert tags[0] == tags[1]


def test_a_process_killed_on_one_host_ends_both(hosts: list[list[str]], options: dict[str, Any], alone: Path) -> None:
    folder = alone.parent / "killed"
    changes = {"per_gpu_train_batch_size": 4, "output_dir": folder, "max_steps": 5000}
    main, other = launch(hosts, 1, {**options, **changes})
    main.wait_for("step 1/5000")
    other.kill_rank(1)
    code, printed = other.end()
    assert code != 0
    assert "Signal 9 (SIGKILL)" in printed
    assert main.end()[0] != 0
