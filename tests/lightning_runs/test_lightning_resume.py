"""An interrupted run that is resumed ends as one that was not interrupted, to the last bit, with dropout."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from analysis.report.run_data import read_scalars
from lightning_runs.module import BaseTransformer
from tests.helpers import write_corpus
from tests.lightning_runs.lightning_runs import (
    CrashError,
    call_lightning,
    command_line,
    crash_in,
    ner_options,
    read_scores,
)
from tests.tools.forks import Forked
from tools.distributed import EXIT_CODE
from tools.new_encoder import write_encoder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pl_resume")
    write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    return home


def options(encoder: Path, home: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Eight steps an epoch, two rounds each, three epochs."""
    sizes = {
        "train_batch_size": 4,
        "accumulate_grad_batches": 2,
        "eval_batch_size": 8,
        "save_steps": 3,
        "warmup_steps": 4,
    }
    return ner_options(encoder, home / "corpus", home, **sizes) | {"output_dir": home / name} | changes


@pytest.fixture(scope="module")
def undisturbed(encoder: Path, home: Path) -> Path:
    call_lightning("run_pl_ner", **options(encoder, home, "undisturbed"))
    return home / "undisturbed"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return state


def assert_same_run(folder: Path, other: Path) -> None:
    assert read_scores(folder) == read_scores(other)
    assert {path.name for path in folder.glob("*.ckpt")} == {path.name for path in other.glob("*.ckpt")}
    ours, theirs = weights(folder), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    left, right = (read_scalars(one / "tensorboard") for one in (folder, other))
    assert left["dev/loss"] == right["dev/loss"]


# Batches: 16 an epoch. The 27th is in the second round of step 14, that is of step 6 of the second epoch.
@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("training_step", 27),
        ("training_step", 17),
        ("training_step", 32),
        ("score_dev", 2),
        ("save_checkpoint", 6),
    ],
    ids=["in mid-epoch", "at the start of an epoch", "in the last batch of an epoch", "while scoring", "while saving"],
)
def test_a_crash_changes_nothing(hook: str, call: int, encoder: Path, home: Path, undisturbed: Path) -> None:
    name = f"{hook} {call}"
    with crash_in(hook, call), pytest.raises(CrashError):
        call_lightning("run_pl_ner", **options(encoder, home, name))
    call_lightning("run_pl_ner", **options(encoder, home, name, resume_from_checkpoint="auto"))
    assert_same_run(home / name, undisturbed)


@pytest.mark.parametrize("save_steps", [3, 4], ids=["within an epoch", "at its end too"])
def test_crashes_in_a_row_change_nothing(save_steps: int, encoder: Path, home: Path, undisturbed: Path) -> None:
    chosen = options(encoder, home, f"crashes {save_steps}", save_steps=save_steps, resume_from_checkpoint="auto")
    for call in (26, 2):  # in the second round of step 13, and, gone on after step 12, in it again
        with crash_in("training_step", call), pytest.raises(CrashError):
            call_lightning("run_pl_ner", **chosen)
    call_lightning("run_pl_ner", **chosen)
    assert_same_run(Path(chosen["output_dir"]), undisturbed)


def test_no_round_of_the_next_epoch_is_in_the_checkpoint_of_an_epoch(
    encoder: Path, home: Path, undisturbed: Path
) -> None:
    chosen = options(encoder, home, "next epoch", save_steps=4, resume_from_checkpoint="auto")
    with crash_in("training_step", 18), pytest.raises(CrashError):
        call_lightning("run_pl_ner", **chosen)
    call_lightning("run_pl_ner", **chosen)
    assert_same_run(home / "next epoch", undisturbed)


@pytest.mark.slow
def test_a_killed_process_goes_on_where_it_was(encoder: Path, home: Path, undisturbed: Path) -> None:
    chosen = options(encoder, home, "killed")
    run = Forked(["run_pl_ner.py"], command_line(gpus=0, **chosen))
    deadline = time.monotonic() + 200
    while not (home / "killed" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    assert run.end().returncode == -signal.SIGKILL
    call_lightning("run_pl_ner", **chosen, resume_from_checkpoint="auto")
    assert_same_run(home / "killed", undisturbed)


# Kills itself while the second best model is half-written.
KILL = """
import os, signal
from transformers import PreTrainedTokenizerBase
import run_pl_ner
from tools.script import run_script
write, calls = PreTrainedTokenizerBase.save_pretrained, []
def killing(*arguments, **options):
    calls.append(arguments)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*arguments, **options)
PreTrainedTokenizerBase.save_pretrained = killing
run_script(run_pl_ner.main)
"""


@pytest.mark.slow
def test_a_kill_while_the_best_model_is_written_leaves_the_one_before(
    encoder: Path, home: Path, undisturbed: Path, tmp_path: Path
) -> None:
    chosen = options(encoder, home, "killed while writing", do_predict=False)
    program = tmp_path / "kill.py"
    program.write_text(KILL, "utf-8")
    done = Forked([str(program)], command_line(gpus=0, **chosen)).end()
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    folder = home / "killed while writing"
    (unfinished,) = folder.glob(".checkpoint-best.*unfinished")
    first, second = (load_file(part / "model.safetensors") for part in (folder / "checkpoint-best", unfinished))
    assert not all(torch.equal(first[name], second[name]) for name in first)
    assert AutoTokenizer.from_pretrained(folder / "checkpoint-best").vocab_size
    call_lightning("run_pl_ner", **options(encoder, home, folder.name, resume_from_checkpoint="auto"))
    assert_same_run(folder, undisturbed)
    assert not list(folder.glob(".*unfinished"))


def test_auto_starts_anew_where_there_is_no_checkpoint(encoder: Path, home: Path, undisturbed: Path) -> None:
    call_lightning("run_pl_ner", **options(encoder, home, "nothing yet", resume_from_checkpoint="auto"))
    assert_same_run(home / "nothing yet", undisturbed)


def test_a_checkpoint_that_is_named_must_exist(encoder: Path, home: Path) -> None:
    with pytest.raises(SystemExit, match=r"--resume_from_checkpoint nowhere\.ckpt: no such file"):
        call_lightning("run_pl_ner", **options(encoder, home, "named", resume_from_checkpoint="nowhere.ckpt"))


def test_other_data_or_another_order_is_refused(encoder: Path, home: Path, undisturbed: Path) -> None:
    checkpoint = undisturbed / "last.ckpt"
    chosen = options(encoder, home, "other seed", resume_from_checkpoint=checkpoint, seed=1)
    with pytest.raises(SystemExit, match="the order of the training data has changed"):
        call_lightning("run_pl_ner", **chosen)


def test_more_epochs_go_on_from_the_end(encoder: Path, home: Path, undisturbed: Path) -> None:
    checkpoint = undisturbed / "last.ckpt"
    chosen = options(encoder, home, "longer", resume_from_checkpoint=checkpoint, max_epochs=4, lr_scheduler="constant")
    call_lightning("run_pl_ner", **chosen)
    saved = torch.load(home / "longer" / "last.ckpt", weights_only=True)
    assert (saved["epoch"], saved["global_step"]) == (3, 32)


def refusal(encoder: Path, home: Path, name: str, **changes: Any) -> str:
    with pytest.raises(SystemExit) as error:
        call_lightning("run_pl_ner", **options(encoder, home, name, **changes))
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 1e-4}, "--learning_rate 0.0001 (before 0.002)"),
        ({"weight_decay": 0.5}, "--weight_decay 0.5 (before 0.0)"),
        ({"adafactor": True}, "--optim adafactor (before adamw_torch_fused)"),
    ],
)
def test_a_flag_that_the_optimiser_would_keep_is_refused(
    changes: dict[str, Any], said: str, encoder: Path, home: Path, undisturbed: Path
) -> None:
    message = refusal(encoder, home, "changed", resume_from_checkpoint=undisturbed / "last.ckpt", **changes)
    assert said in message
    assert "last.ckpt overrides them" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"head": "crf"},
            r"holds BertSoftmaxForNer with labels O .*, not BertCrfForNer with labels O .*: use the same",
        ),
        ({"markup": "bios"}, "was trained with --markup bio, not bios: use the same value"),
        ({"casing": True}, "was trained with --casing False, not True: use the same value"),
        ({"max_seq_length": 60}, "was trained with --train_max_seq_length 128, not 60: use the same value"),
    ],
)
def test_a_checkpoint_of_another_kind_of_model_is_refused(
    changes: dict[str, Any], said: str, encoder: Path, home: Path, undisturbed: Path
) -> None:
    message = refusal(encoder, home, "kind", resume_from_checkpoint=undisturbed / "last.ckpt", **changes)
    assert re.search(said, message), message


def test_a_checkpoint_of_another_encoder_is_refused(
    encoder: Path, home: Path, undisturbed: Path, tmp_path: Path
) -> None:
    write_encoder(tmp_path, encoder / "vocab.txt", layers=1, width=64, max_positions=64)
    message = refusal(tmp_path, home, "encoder", resume_from_checkpoint=undisturbed / "last.ckpt")
    assert re.search(r"undisturbed/last\.ckpt has another encoder .*layer\.1\..*: name it", message), message


def test_a_checkpoint_with_averages_of_lightning_is_refused(
    encoder: Path, home: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Earlier versions stored averages as Lightning's own callback does: in place of the weights."""
    saved = torch.load(undisturbed / "last.ckpt", weights_only=False)
    torch.save({**saved, "current_model_state": saved["state_dict"], "averaging_state": {}}, tmp_path / "last.ckpt")
    message = refusal(encoder, home, "averages", resume_from_checkpoint=tmp_path / "last.ckpt")
    assert "last.ckpt was written by an earlier version: resume with that version, or train again" in message


def test_dev_may_be_scored_and_the_run_stopped_at_any_step(encoder: Path, home: Path) -> None:
    chosen = {"max_steps": 13, "logging_steps": 5, "do_predict": False}
    call_lightning("run_pl_ner", **options(encoder, home, "steps", **chosen))
    assert list(read_scalars(home / "steps" / "tensorboard")["dev/f1"]) == [5, 10, 13]
    with crash_in("training_step", 23), pytest.raises(CrashError):  # in step 12, after the checkpoint of step 9
        call_lightning("run_pl_ner", **options(encoder, home, "steps again", **chosen))
    call_lightning("run_pl_ner", **options(encoder, home, "steps again", resume_from_checkpoint="auto", **chosen))
    left, right = (read_scalars(home / name / "tensorboard") for name in ("steps", "steps again"))
    assert left["dev/loss"] == right["dev/loss"]
    assert all(torch.equal(weights(home / "steps")[name], one) for name, one in weights(home / "steps again").items())


def test_a_run_that_is_asked_to_stop_resumes(encoder: Path, home: Path, undisturbed: Path) -> None:
    chosen = options(encoder, home, "interrupted", save_steps=0)
    step = BaseTransformer.training_step

    def stopping(self: BaseTransformer, batch: dict[str, Any], batch_idx: int) -> None:
        if self.global_step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, batch, batch_idx)

    with patch.object(BaseTransformer, "training_step", stopping), pytest.raises(SystemExit) as end:
        call_lightning("run_pl_ner", **chosen)
    assert end.value.code == EXIT_CODE
    call_lightning("run_pl_ner", **chosen, resume_from_checkpoint="auto")
    assert read_scores(home / "interrupted") == read_scores(undisturbed)
    curves = [read_scalars(folder / "tensorboard")["dev/loss"] for folder in (home / "interrupted", undisturbed)]
    assert curves[0] == curves[1]
