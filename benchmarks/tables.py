"""Run the benchmarks, and write their tables into the documentation.

python -m benchmarks.tables --data DATA --encoder ENCODER --output_dir outputs/benchmarks

``DATA`` has the folder of CoNLL-2003. A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` in a file of
docs/. What was measured stays in the output folder: a second run goes on after the last finished benchmark.
"""

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from string import Template

import torch
from tqdm import tqdm

from benchmarks.crf import machine, versions
from tools.script import run_script

ROOT = Path(__file__).resolve().parent.parent
_RECIPE = (
    "--task_name conll2003 --data_dir $DATA/conll2003 --model_name_or_path $ENCODER --do_lower_case "
    "--per_gpu_train_batch_size 32 --per_gpu_eval_batch_size 64 --learning_rate 1e-4"
)
_RUN = (
    f"run_ner_softmax.py {_RECIPE} --markup bio --bf16 --do_train --num_train_epochs 1 --output_dir $OUT/softmax "
    "--overwrite_output_dir"
)
_RACE = f"-m benchmarks.train {_RECIPE} --sentences 1500 --num_train_epochs 1"
_STEPS = f"-m benchmarks.step_parts run_ner_crf.py {_RECIPE} --max_steps 65"
COMMANDS = {
    "crf": "-m benchmarks.crf",
    "train": f"{_RACE} --output_dir $OUT/race",
    "train_bf16": f"{_RACE} --bf16 --output_dir $OUT/race_bf16",
    "step_parts": _STEPS,
    "step_parts_bf16": f"{_STEPS} --bf16",
    "predict": "-m benchmarks.predict --model $OUT/softmax --texts $DATA/conll2003/iob2/valid.txt --sentences 300 "
    "--documents 6",
    "data": "-m benchmarks.data",
}
_NEEDED_FIRST = {"predict": _RUN}
_PEERS = {"train": ("flair",), "predict": ("flair", "spacy")}


def measure(name: str, given: dict[str, str], pythons: dict[str, str], added: Sequence[str], folder: Path) -> None:
    """Run a benchmark, and write its table with command, machine and date to ``NAME.md``.

    Args:
        given: values of the variables in the commands, which the table shows by name.
        pythons: of other libraries.
        added: flags for this machine.
    """
    if name in _NEEDED_FIRST and not (folder / "softmax" / "train_results.json").is_file():
        subprocess.run(resolved(_NEEDED_FIRST[name], given), cwd=ROOT, check=True, stdout=sys.stderr)
    command = COMMANDS[name]
    peers = [f"--{library}_python={pythons[library]}" for library in _PEERS.get(name, ()) if pythons[library]]
    done = subprocess.run(
        [*resolved(command, given), *peers, *added], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = f"{time.strftime('%Y-%m-%d')}, {machine(device, torch.get_num_threads())}; {versions()}"
    shown = " ".join(["python", command, *added])
    (folder / f"{name}.md").write_text(f"```bash\n{shown}\n```\n\n{where}\n\n{done.stdout.strip()}\n", "utf-8")


def resolved(command: str, given: dict[str, str]) -> list[str]:
    return [sys.executable, *shlex.split(Template(command).substitute(given))]


def update(document: Path, folder: Path) -> list[str]:
    """Replace the tables in a document by those that were measured, and return their names."""
    found: list[str] = []

    def table(match: re.Match[str]) -> str:
        measured = folder / f"{match[1]}.md"
        if not measured.is_file():
            return match[0]
        found.append(match[1])
        return f"<!-- table: {match[1]} -->\n{measured.read_text('utf-8').strip()}\n<!-- end -->"

    before = document.read_text("utf-8")
    after = re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, before, flags=re.DOTALL)
    if after != before:
        document.write_text(after, "utf-8")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the folder conll2003")
    parser.add_argument("--encoder", required=True, help="pretrained uncased encoder: name or folder")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "benchmarks", help="folder to write")
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), help="benchmarks to run; default: all")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the documents to update")
    parser.add_argument("--flair_python", default="", help="Python of an environment with Flair")
    parser.add_argument("--spacy_python", default="", help="Python of an environment with spacy-transformers")
    parser.add_argument("added", nargs="*", help="after --: flags for every benchmark, as in -- --rounds 1")
    args = parser.parse_args()
    folder = args.output_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    given = {"DATA": str(args.data.resolve()), "ENCODER": args.encoder, "OUT": str(folder)}
    pythons = {"flair": args.flair_python, "spacy": args.spacy_python}
    for name in tqdm(args.only or list(COMMANDS), desc="Benchmarks"):
        if not (folder / f"{name}.md").is_file():
            tqdm.write(name)
            measure(name, given, pythons, args.added, folder)
    written = [name for document in sorted(args.docs.glob("*.md")) for name in update(document, folder)]
    print(f"Tables written to {args.docs}: {', '.join(written) or 'none'}")


if __name__ == "__main__":
    run_script(main)
