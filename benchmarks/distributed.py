"""Train the same run on 1, 2, ... processes with one thread or GPU each, and compare speed and result.

The batch of a step is the same for all: `--per_gpu_train_batch_size` is what one process alone would have.

python -m benchmarks.distributed 1,2 run_ner_crf.py --task_name cner --data_dir /data/cner --model_name_or_path ENCODER
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.table import Table

from common.log import console

ROUNDS = 3  # taken in turn, so that other load on the machine affects all alike


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    counts = [int(count) for count in sys.argv[1].split(",")]
    runs: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            runs[count].append(_run(count, sys.argv[2:]))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, a thread a process"
    table = Table("processes", title=f"Training on {device}, torch {torch.__version__}, median of {ROUNDS}")
    for column in ("words/s", "ratio", "mean loss"):
        table.add_column(column, justify="right")
    speeds = {count: statistics.median(speed for speed, _ in runs[count]) for count in counts}
    for count, speed in speeds.items():
        table.add_row(str(count), f"{speed:,.0f}", f"{speed / speeds[counts[0]]:.2f}", f"{runs[count][0][1]:.6f}")
    console().print(table)


def _run(processes: int, command: list[str]) -> tuple[float, float]:
    """Words per second and mean loss of a run."""
    flag = "--per_gpu_train_batch_size"
    whole_batch = int(command[command.index(flag) + 1]) if flag in command else 32
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with TemporaryDirectory() as folder:
        share = [flag, str(whole_batch // processes), f"--output_dir={folder}/run", "--do_train"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *launcher, *command, *share], env=environment, check=True)
        trained = json.loads(Path(folder, "run", "train_results.json").read_text("utf-8"))
    return trained["words_per_second"], trained["loss"]


if __name__ == "__main__":
    main()
