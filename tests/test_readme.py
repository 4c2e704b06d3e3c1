"""The commands that the two READMEs show are the same, and run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from models import BertSoftmaxForNer
from tests.helpers import ROOT, write_corpus
from tests.tools.runs import FinishedRun, start_script
from tools.command_line import parse_settings
from tools.loading import load_model_and_tokenizer
from tools.run import Run

READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]


def blocks(readme: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", readme.read_text("utf-8"), flags=re.S)


COMMANDS = blocks(READMES[0], "bash")


def comparable(command: str) -> str:
    return command.replace("bert-base-cased", "ENCODER").replace("bert-base-chinese", "ENCODER")


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = ([*map(comparable, blocks(readme, "bash")), *blocks(readme, "python")] for readme in READMES)
    assert english == chinese


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> dict[str, str]:
    """What the README's placeholders stand for here: a corpus, and an encoder with weights."""
    folder = tmp_path_factory.mktemp("readme")
    write_corpus(folder / "data", {"train": 40, "dev": 10, "test": 10})
    flags = ["--task_name=tiny", f"--data_dir={folder / 'data'}", f"--model_name_or_path={encoder}", "--from_scratch"]
    settings = parse_settings(BertSoftmaxForNer.Options, argv=[*flags, "--do_train"])
    _, model, tokenizer = load_model_and_tokenizer(Run.of(settings), BertSoftmaxForNer)
    encoder_model = getattr(model, model.base_model_prefix)
    encoder_model.save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    return {
        "TASK_NAME=cner": "TASK_NAME=tiny",
        "/data/cner": str(folder / "data"),
        "--data_dir datasets/sample": f"--data_dir {folder / 'data'}",
        "/data/mine": str(folder / "data"),
        "bert-base-cased": str(folder / "encoder"),
        "bert-base-chinese": str(folder / "encoder"),
    }


def short_flags(output_dir: Path) -> str:
    return (
        f"--max_steps 3 --learning_rate 2e-4 --output_dir {output_dir} --feature_cache_dir {output_dir}-cache --no_cuda"
    )


def run_command(command: str, places: dict[str, str]) -> str:
    """Runs a shell command with the placeholders replaced; returns what it printed."""
    for placeholder, place in places.items():
        command = command.replace(placeholder, place)
    if command.startswith("python "):
        done = start_script(*shlex.split(command.replace("\\\n", ""))[1:])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    environment = os.environ | {"SKIP_INSTALL": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.setdefault("VIRTUAL_ENV", sys.prefix)
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [block for block in COMMANDS if "run_ner" in block or "torchrun" in block])
def test_training_command_runs(command: str, places: dict[str, str], tmp_path: Path) -> None:
    of_sample = "--do_predict false" if command.strip() == "bash scripts/run_ner_crf.sh" else ""  # dev is enough
    printed = run_command(f"{command.strip()} {short_flags(tmp_path / 'run')} {of_sample}", places)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "micro" in printed
    used = json.loads((tmp_path / "run" / "training_args.json").read_text("utf-8"))
    assert (used["max_steps"], used["learning_rate"]) == (3, 2e-4)  # flags after those of a script win


@pytest.mark.slow
@pytest.mark.parametrize("command", [block for block in COMMANDS if "predict_ner" in block])
def test_prediction_command_runs(command: str, crf_run: FinishedRun) -> None:
    printed = run_command(command, {"outputs/mine": str(crf_run.folder)})
    assert json.loads(printed)["text"] == "Anna went to Rome."


def test_links_lead_somewhere() -> None:
    for page in (*READMES, *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
