"""Train the same run in every precision of the device, and compare speed and score.

python -m benchmarks.precision run_ner_crf.py --task_name cner --data_dir /data/cner --model_name_or_path ENCODER
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from analysis.compare_runs import Sheet, as_markdown

_CPU_MODES = {"float32": [], "bfloat16": ["--bf16"]}
_GPU_MODES = {
    **_CPU_MODES,
    "tensorfloat32": ["--tf32"],
    "float16, torch.amp": ["--fp16", "--fp16_backend=native"],
    "float16, apex O1": ["--fp16", "--fp16_backend=apex", "--fp16_opt_level=O1"],
    "float16, apex O2": ["--fp16", "--fp16_backend=apex", "--fp16_opt_level=O2"],
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    command = [sys.executable, *sys.argv[1:], "--do_train", "--do_eval"]
    modes = _GPU_MODES if torch.cuda.is_available() else _CPU_MODES
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    rows: list[list[str]] = []
    reference = 0.0
    for mode, flags in modes.items():
        with TemporaryDirectory() as folder:
            done = subprocess.run([*command, *flags, f"--output_dir={folder}/run"], text=True, stderr=subprocess.PIPE)
            if done.returncode:  # for example without apex
                rows.append([mode, done.stderr.strip().splitlines()[-1], "", "", ""])
                continue
            trained = json.loads(Path(folder, "run", "train_results.json").read_text("utf-8"))
            scores = json.loads(Path(folder, "run", "eval_results.json").read_text("utf-8"))
        speed = trained["words_per_second"]
        reference = reference or speed
        numbers = [f"{speed:,.0f}", f"{speed / reference:.2f}", f"{scores['f1']:.4f}", str(trained["skipped_steps"])]
        rows.append([mode, *numbers])
    print(f"{device}, torch {torch.__version__}\n")
    print(as_markdown(Sheet("", 1, ["precision", "words/s", "ratio", "dev F1", "skipped steps"], rows)))


if __name__ == "__main__":
    main()
