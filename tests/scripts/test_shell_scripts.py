"""The shell scripts as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, write_corpus

# What a user of BERT-NER-Pytorch has in his own folder, but for the corpus and the length of the training.
FOREIGN_SCRIPT = """
CURRENT_DIR=`pwd`
export BERT_BASE_DIR=$CURRENT_DIR/prev_trained_model/bert-base
export DATA_DIR=$CURRENT_DIR/datasets
export OUTPUR_DIR=$CURRENT_DIR/outputs
TASK_NAME="cner"
python run_ner_crf.py \\
  --model_type=bert \\
  --model_name_or_path=$BERT_BASE_DIR \\
  --config_name=$BERT_BASE_DIR/bert_config.json \\
  --tokenizer_name=$BERT_BASE_DIR/vocab.txt \\
  --task_name=$TASK_NAME \\
  --do_train \\
  --do_eval \\
  --do_lower_case \\
  --data_dir=$DATA_DIR/${TASK_NAME}/ \\
  --train_max_seq_length=128 \\
  --eval_max_seq_length=512 \\
  --per_gpu_train_batch_size=24 \\
  --per_gpu_eval_batch_size=24 \\
  --learning_rate=3e-5 \\
  --crf_learning_rate=1e-3 \\
  --num_train_epochs=1.0 \\
  --logging_steps=-1 \\
  --save_steps=-1 \\
  --output_dir=$OUTPUR_DIR/${TASK_NAME}_output/ \\
  --overwrite_output_dir \\
  --seed=42
"""


def ended(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    done = ended(command, cwd, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_script_of_bert_ner_pytorch_runs_unchanged(encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    pretrained = tmp_path / "prev_trained_model" / "bert-base"
    AutoModel.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(pretrained)
    (pretrained / "config.json").rename(pretrained / "bert_config.json")
    (pretrained / "vocab.txt").write_bytes((encoder / "vocab.txt").read_bytes())
    corpus = tmp_path / "datasets" / "cner"
    corpus.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        lines = "t B-NAME\nh M-NAME\ne E-NAME\nm O\n\na O\nn S-LOC\n\n" * 20
        (corpus / f"{split}.char.bmes").write_text(lines, "utf-8")
    for name in ("run_ner_crf.py", "tools", "models", "processors", "callbacks"):
        (tmp_path / name).symlink_to(ROOT / name)
    run(["bash", "-c", FOREIGN_SCRIPT], tmp_path)
    assert (tmp_path / "outputs" / "cner_output" / "eval_results.txt").is_file()
    assert [path.name for path in (tmp_path / "outputs" / "cner_output").glob("checkpoint-*[0-9]")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "written"),
    [("run_pl_ner.sh", ["labels.txt", "test_predictions.txt"]), ("run_pl_glue.sh", ["submission/MRPC.tsv"])],
)
def test_lightning_scripts_run_on_the_samples_without_arguments(
    script: str, written: list[str], tmp_path: Path
) -> None:
    variables = {"SKIP_INSTALL": "1", "VIRTUAL_ENV": sys.prefix, "OUTPUT_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run(["bash", f"scripts/{script}", "--max_steps", "3", "--gpus", "0"], ROOT, **variables)
    for name in [*written, "config.json", "last.ckpt", "eval_results.txt", "environment.json"]:
        assert (tmp_path / name).is_file(), name


@pytest.mark.slow
def test_a_variant_is_run_over_seeds_and_its_spread_shown(tmp_path: Path) -> None:
    """Its flags win over those of ``run_ner_softmax.sh``."""
    corpus = write_corpus(tmp_path / "corpus", {"train": 20, "dev": 10})
    variables = {"SKIP_INSTALL": "1", "VIRTUAL_ENV": sys.prefix, "OUTPUT_DIR": str(tmp_path / "short")}
    variables |= {"TASK_NAME": "tiny", "DATA_DIR": str(corpus)}
    flags = ["--max_steps", "2", "--do_predict", "false", "--no_cuda", f"--feature_cache_dir={tmp_path / 'cache'}"]
    done = run(["bash", "scripts/run_seeds.sh", "softmax", "1", "12", *flags], ROOT, **variables)
    for seed in (1, 12):
        used = json.loads((tmp_path / f"short_seed{seed}" / "training_args.json").read_text("utf-8"))
        assert (used["seed"], used["max_steps"]) == (seed, 2)
    assert any("short" in line and " 2 " in line for line in done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(("target", "outcome"), [("0", 0), ("1.1", 1)])
def test_a_speedrun_tells_its_time_and_misses_its_target(
    target: str, outcome: int, encoder: Path, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 20, "dev": 10})
    variables = {"SKIP_INSTALL": "1", "VIRTUAL_ENV": sys.prefix, "OUTPUT_DIR": str(tmp_path / "run")}
    variables |= {"DATA_DIR": str(corpus), "MODEL_NAME_OR_PATH": str(encoder), "TARGET": target}
    flags = ["--from_scratch", "--max_steps", "2", "--no_cuda", f"--feature_cache_dir={tmp_path / 'cache'}"]
    done = ended(["bash", "scripts/speedrun.sh", *flags], ROOT, **variables)
    assert done.returncode == outcome, done.stderr
    assert "s of training at" in done.stdout
    assert ("below 1.1" in done.stderr) == bool(outcome)


@pytest.mark.slow
def test_the_gpu_check_takes_flags() -> None:
    """Its dry run is in test_benchmarks.py."""
    assert "--dry_run" in run(["bash", "scripts/gpu_check.sh", "--help"], ROOT, SKIP_INSTALL="1").stdout


@pytest.mark.parametrize(("arguments", "message"), [(["hmm", "1"], "run_ner_hmm.sh"), (["crf", "--no_cuda"], "seed")])
def test_seeds_need_a_variant_and_numbers(arguments: list[str], message: str) -> None:
    done = subprocess.run(["bash", "scripts/run_seeds.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_installs_once_into_a_new_environment_and_again_when_requirements_change(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "environment.sh").write_bytes((ROOT / "scripts" / "environment.sh").read_bytes())
    (tmp_path / "requirements.txt").write_text("", "utf-8")
    command = ["bash", "-c", "source scripts/environment.sh requirements.txt; which python"]
    variables = {"VIRTUAL_ENV": "", "CONDA_PREFIX": "", "SKIP_INSTALL": "", "PYTHON": sys.executable}
    first, second = run(command, tmp_path, **variables), run(command, tmp_path, **variables)
    (tmp_path / "requirements.txt").write_text("# changed\n", "utf-8")
    third = run(command, tmp_path, **variables)
    assert str(tmp_path / ".venv") in first.stdout
    assert ["Installing" in done.stdout for done in (first, second, third)] == [True, False, True]
