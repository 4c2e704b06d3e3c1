"""A run that is cut off and goes on ends as one that is not, to the last bit, with dropout and all."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from analysis.report.run_data import read_scalars
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
    assert left["val_loss"] == right["val_loss"]


# Batches: 16 an epoch. The 27th is in the second round of step 14, that is of step 6 of the second epoch.
@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("training_step", 27),
        ("training_step", 17),
        ("training_step", 32),
        ("validation_step", 5),
        ("on_validation_epoch_end", 2),
    ],
    ids=["in mid-epoch", "at the start of an epoch", "in the last batch of an epoch", "while scoring", "after scoring"],
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
from tools.recipe import run_script
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
    first, second = (load_file(folder / part / "model.safetensors") for part in ("best_tfmr", ".best_tfmr.unfinished"))
    assert not all(torch.equal(first[name], second[name]) for name in first)
    assert AutoTokenizer.from_pretrained(folder / "best_tfmr").vocab_size
    call_lightning("run_pl_ner", **options(encoder, home, folder.name, resume_from_checkpoint="auto"))
    assert_same_run(folder, undisturbed)
    assert not list(folder.glob(".*unfinished"))


def test_auto_starts_anew_where_there_is_no_checkpoint(encoder: Path, home: Path, undisturbed: Path) -> None:
    call_lightning("run_pl_ner", **options(encoder, home, "nothing yet", resume_from_checkpoint="auto"))
    assert_same_run(home / "nothing yet", undisturbed)


def test_a_checkpoint_that_is_named_must_exist(encoder: Path, home: Path) -> None:
    with pytest.raises(SystemExit, match=r"--resume_from_checkpoint nowhere\.ckpt: there is no such file"):
        call_lightning("run_pl_ner", **options(encoder, home, "named", resume_from_checkpoint="nowhere.ckpt"))


def test_other_data_or_another_order_is_refused(encoder: Path, home: Path, undisturbed: Path) -> None:
    checkpoint = undisturbed / "last.ckpt"
    chosen = options(encoder, home, "other seed", resume_from_checkpoint=checkpoint, seed=1)
    with pytest.raises(SystemExit, match="the training data comes in another order than before"):
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
        ({"adafactor": True}, "--adafactor True (before False)"),
    ],
)
def test_a_flag_that_the_optimiser_would_keep_is_refused(
    changes: dict[str, Any], said: str, encoder: Path, home: Path, undisturbed: Path
) -> None:
    message = refusal(encoder, home, "changed", resume_from_checkpoint=undisturbed / "last.ckpt", **changes)
    assert said in message
    assert "last.ckpt keeps what it had" in message


@pytest.mark.parametrize("do_train", [True, False])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "crf"}, "was trained with --head softmax: say the same"),
        ({"markup": "bios"}, "was trained with --markup bio: say the same"),
        ({"casing": True}, "was trained with --casing False: say the same"),
        ({"max_seq_length": 60}, "was trained with --max_seq_length 128: say the same"),
    ],
)
def test_a_checkpoint_of_another_kind_of_model_is_refused(
    do_train: bool, changes: dict[str, Any], said: str, encoder: Path, home: Path, undisturbed: Path
) -> None:
    wanted = {"resume_from_checkpoint": undisturbed / "last.ckpt"} if do_train else {"do_train": False}
    message = refusal(encoder, home, "kind" if do_train else "undisturbed", **wanted, **changes)
    assert said in message


def test_a_checkpoint_of_another_encoder_is_refused(
    encoder: Path, home: Path, undisturbed: Path, tmp_path: Path
) -> None:
    write_encoder(tmp_path, encoder / "vocab.txt", layers=1, width=64, max_positions=64)
    message = refusal(tmp_path, home, "undisturbed", do_train=False)
    assert re.search(r"undisturbed/checkpoint-epoch=\d\.ckpt is of another encoder .*layer\.1\..*: name it", message)
