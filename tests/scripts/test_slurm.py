"""The batch script for Slurm, with stand-ins for srun and scontrol that start real tasks on this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import ROOT, write_corpus
from tests.tools.ranks import free_port
from tests.tools.runs import read_json

STEPS = 400
pytestmark = pytest.mark.slow


@pytest.fixture
def submit(encoder: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the script as Slurm would, with two tasks or other numbers."""
    job = (free_port() - 15000) % 10000  # the script takes its port from the number of the job
    slurm = {"JOB_ID": job, "JOB_NODELIST": "here", "CPUS_PER_TASK": 1}
    environment = os.environ | {f"SLURM_{name}": str(value) for name, value in slurm.items()}
    bin_folders = [str(ROOT / "tests" / "scripts" / "slurm"), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment |= {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "PATH": ":".join(bin_folders),
        "REQUEUED": str(tmp_path / "requeued"),
        "TASK_NAME": "tiny",
        "DATA_DIR": str(write_corpus(tmp_path / "corpus", {"train": 60, "dev": 20, "test": 20})),
        "OUTPUT_DIR": str(tmp_path / "run"),
        "SKIP_INSTALL": "1",
        "VIRTUAL_ENV": sys.prefix,
        "HF_HUB_OFFLINE": "1",
    }

    def start(*flags: str, tasks: int = 2) -> subprocess.Popen[str]:
        places = [f"--model_name_or_path={encoder}", "--from_scratch", f"--feature_cache_dir={tmp_path / 'cache'}"]
        command = ["bash", "scripts/slurm_ner_crf.sh", *places, "--no_cuda", *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        counts = {name: str(tasks) for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")}
        return subprocess.Popen(command, cwd=ROOT, env=environment | counts, text=True, **pipes)  # type: ignore[call-overload]

    return start


def test_a_job_whose_time_is_over_is_queued_again_and_goes_on(
    submit: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    length = ["--max_steps", str(STEPS), "--log_loss_steps", "1", "--logging_steps", "100"]
    job = submit(*length)
    assert job.stdout is not None
    printed = []
    for line in job.stdout:
        printed.append(line)
        if f"/{STEPS}, epoch" in line:
            break
    (srun,) = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(srun), signal.SIGUSR1)
    printed += job.communicate(timeout=120)[0].splitlines(keepends=True)
    assert job.returncode == 0, "".join(printed)
    assert len((tmp_path / "requeued").read_text().split()) == 1
    assert not (tmp_path / "run" / "model.safetensors").exists()

    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*/training_state.pt")
    steps = int(checkpoint.parent.name.rpartition("-")[2]) + 5
    job = submit("--max_steps", str(steps), "--logging_steps", "100")
    rest = job.communicate(timeout=120)[0]
    assert job.returncode == 0, rest
    assert "Resuming after step" in rest
    assert len((tmp_path / "requeued").read_text().split()) == 1
    assert (tmp_path / "run" / "test_predictions.jsonl").is_file()
    assert read_json(tmp_path / "run" / "environment.json")["processes"] == 2


def test_a_job_that_fails_is_not_queued_again(submit: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    job = submit("--train_file", "nowhere.txt", tasks=1)
    printed = job.communicate(timeout=120)[0]
    assert job.returncode != 0
    assert printed.count("error: ") == 1
    assert "nowhere.txt" in printed
    assert not (tmp_path / "requeued").exists()
