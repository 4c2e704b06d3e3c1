"""An interrupted training ends as the undisturbed one does, bit for bit, or says why it cannot."""

import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.report.run_data import read_scalars
from tests.helpers import write_corpus
from tests.tools.interrupted import fit_with_interruption, signal_in_step
from tests.tools.runs import crf, fit, options_of_run, read_json, replace
from tools.checkpoint import checkpoint_to_resume
from tools.distributed import EXIT_CODE, Interrupted
from tools.run import Run

STEPS_PER_EPOCH = 8


@pytest.fixture
def args(crf_args: Run) -> Run:
    """Two epochs and a half, with dropout."""
    return replace(crf_args, max_steps=20, log_loss_steps=3)


@pytest.fixture(scope="module")
def steady(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, float, dict[str, Tensor]]:
    """What the training of `args` ends with if nothing disturbs it."""
    home = tmp_path_factory.mktemp("steady")
    corpus = write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    options = options_of_run(encoder, corpus, home) | {"do_train": True, "from_scratch": True}
    return fit(crf(**options, max_steps=20, log_loss_steps=3))


def undisturbed(args: Run, tmp_path: Path) -> tuple[int, float, dict[str, Tensor]]:
    return fit(replace(args, output_dir=str(tmp_path / "undisturbed")))


def assert_equal(left: tuple[int, float, dict[str, Tensor]], right: tuple[int, float, dict[str, Tensor]]) -> None:
    assert left[0] == right[0]
    assert left[1] == pytest.approx(right[1], rel=1e-6)
    assert left[2].keys() == right[2].keys()
    unequal = [name for name, weight in left[2].items() if not torch.equal(weight, right[2][name])]
    assert unequal == []


@pytest.mark.parametrize("step", [1, 5, STEPS_PER_EPOCH, 13, 19, 20])
def test_it_goes_on_at_any_step(args: Run, steady: tuple[int, float, dict[str, Tensor]], step: int) -> None:
    assert_equal(fit_with_interruption(args, step), steady)


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 2, "per_gpu_train_batch_size": 4},
        {"num_workers": 1},
        {"max_batch_tokens": 200},
        {"do_adv": True},
        {"bf16": True},
        {"evaluate_during_training": False},
        {"logging_steps": 2, "missing_entities": True, "entity_ratio": 0.05},
        {"save_steps": 2, "save_total_limit": 1},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_it_goes_on_with_any_kind_of_training(args: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    args = replace(args, **changes)
    assert_equal(fit_with_interruption(args, 13), undisturbed(args, tmp_path))


def test_it_goes_on_with_a_softmax(softmax_args: Run, tmp_path: Path) -> None:
    args = replace(softmax_args, max_steps=12)
    assert_equal(fit_with_interruption(args, 5), undisturbed(args, tmp_path))


def test_a_signal_in_mid_accumulation_finishes_the_step(args: Run, tmp_path: Path) -> None:
    args = replace(args, gradient_accumulation_steps=3, per_gpu_train_batch_size=3)
    with signal_in_step(7, in_round=2), pytest.raises(Interrupted):
        fit(args)
    assert Path(args.folder.path, "checkpoint-7", "training_state.pt").is_file()
    assert_equal(fit(replace(args, resume_from_checkpoint="auto")), undisturbed(args, tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_it_can_be_interrupted_again_and_again(
    args: Run, steady: tuple[int, float, dict[str, Tensor]], number: int
) -> None:
    for step in (4, 5, 12):
        with signal_in_step(step, number), pytest.raises(Interrupted) as stop:
            fit(replace(args, resume_from_checkpoint="auto"))
        assert stop.value.code == EXIT_CODE
    assert_equal(fit(replace(args, resume_from_checkpoint="auto")), steady)


def test_the_best_model_of_before_the_interruption_is_remembered(args: Run, tmp_path: Path) -> None:
    args = replace(args, learning_rate=0.0, crf_learning_rate=0.0)  # the first is the best: none is better
    fit_with_interruption(args, 18)
    assert read_json(Path(args.folder.path, "checkpoint-best", "training_args.json"))["resume_from_checkpoint"] == ""


def test_without_a_checkpoint_auto_starts_from_the_beginning(
    args: Run, steady: tuple[int, float, dict[str, Tensor]]
) -> None:
    assert_equal(fit(replace(args, resume_from_checkpoint="auto")), steady)


def test_a_finished_training_is_not_trained_on(args: Run) -> None:
    args = replace(args, save_steps=7)
    first = fit(args)
    assert_equal(fit(replace(args, resume_from_checkpoint="auto")), first)


def test_a_finished_training_can_be_made_longer(args: Run, tmp_path: Path) -> None:
    args = replace(args, save_steps=7, learning_rate=1e-3)
    fit(replace(args, max_steps=10))
    steps, _, _ = fit(replace(args, max_steps=20, resume_from_checkpoint="auto"))
    assert steps == 20


def test_a_folder_named_outright_is_gone_on_from_elsewhere(args: Run, tmp_path: Path) -> None:
    args = replace(args, save_steps=7)
    expected = fit(args)
    checkpoint = str(Path(args.folder.path, "checkpoint-7"))
    elsewhere = replace(args, output_dir=str(tmp_path / "elsewhere"), resume_from_checkpoint=checkpoint)
    assert_equal(fit(elsewhere), expected)


def test_elsewhere_the_best_is_chosen_anew(args: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = replace(args, save_steps=10, learning_rate=0.0, crf_learning_rate=0.0)  # the first is the best
    fit(args)
    checkpoint = str(Path(args.folder.path, "checkpoint-10"))
    elsewhere = replace(args, output_dir=str(tmp_path / "elsewhere"), resume_from_checkpoint=checkpoint)
    assert fit(elsewhere)[0] == 20
    assert "has no checkpoint-best" in caplog.text
    assert Path(elsewhere.folder.path, "checkpoint-best", "model.safetensors").is_file()
    results = read_json(Path(elsewhere.folder.path, "train_results.json"))
    assert results["best_score"] == read_json(Path(args.folder.path, "train_results.json"))["best_score"]


def test_a_finished_training_has_no_best_elsewhere(args: Run, tmp_path: Path) -> None:
    args = replace(args, save_steps=10, learning_rate=0.0, crf_learning_rate=0.0)
    fit(args)
    checkpoint = str(Path(args.folder.path, "checkpoint-20"))
    elsewhere = replace(args, output_dir=str(tmp_path / "elsewhere"), resume_from_checkpoint=checkpoint)
    assert fit(elsewhere)[0] == 20
    assert read_json(Path(elsewhere.folder.path, "train_results.json"))["best_score"] is None


def test_curves_go_on_where_they_stopped(args: Run) -> None:
    args = replace(args, log_loss_steps=1)
    fit_with_interruption(args, 11)
    assert list(read_scalars(Path(args.folder.path, "tensorboard"))["train/loss"]) == list(range(1, 21))


# What cannot be resumed from


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with checkpoints after steps 3, 6 and 9."""
    home = tmp_path_factory.mktemp("trained")
    corpus = write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    options = options_of_run(encoder, corpus, home) | {"do_train": True, "from_scratch": True}
    run = crf(**options, save_steps=3, max_steps=9, log_loss_steps=3)
    fit(run)
    return run


@pytest.fixture
def stopped(trained: Run, tmp_path: Path) -> Run:
    """A copy of it, to go on with."""
    folder = shutil.copytree(trained.folder.path, tmp_path / "stopped")
    return replace(trained, output_dir=str(folder), resume_from_checkpoint="auto", max_steps=12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 43}, r"checkpoint-9: .* order of the training data has changed.* --seed"),
        ({"per_gpu_train_batch_size": 4}, r"order of the training data has changed.* --gradient_accumulation_steps"),
        ({"crf_constraints": False, "data_dir": "OTHER"}, r"order of the training data has changed|size mismatch"),
    ],
)
def test_another_order_of_the_data_is_refused(
    stopped: Run, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "data_dir" in changes:
        changes["data_dir"] = str(write_corpus(tmp_path / "other", {"train": 70, "dev": 20}, seed=1))
    with pytest.raises(ValueError, match=message):
        fit(replace(stopped, **changes))


def test_the_same_order_in_other_shares_is_not(stopped: Run) -> None:
    assert fit(replace(stopped, per_gpu_train_batch_size=4, gradient_accumulation_steps=2))[0] == 12


@pytest.mark.parametrize("name", ["training_state.pt", "model.safetensors"])
def test_auto_passes_over_a_checkpoint_that_is_cut_off(
    stopped: Run, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut = Path(stopped.folder.path, "checkpoint-9", name)
    cut.write_bytes(cut.read_bytes()[:1000])
    assert checkpoint_to_resume("auto", stopped.folder) == Path(stopped.folder.path, "checkpoint-6")
    assert "checkpoint-9 is damaged" in caplog.text
    with pytest.raises(ValueError, match=r"checkpoint-9 is damaged; resume from an earlier checkpoint"):
        checkpoint_to_resume(str(cut.parent), stopped.folder)


def test_a_model_is_no_checkpoint(stopped: Run) -> None:
    best = Path(stopped.folder.path, "checkpoint-best")
    with pytest.raises(ValueError, match=r"cannot resume from .*checkpoint-best: it has no training_state\.pt"):
        fit(replace(stopped, resume_from_checkpoint=str(best)))


def test_a_checkpoint_of_another_head_is_refused(stopped: Run, softmax_args: Run, tmp_path: Path) -> None:
    checkpoint = str(Path(stopped.folder.path, "checkpoint-9"))
    other = replace(softmax_args, output_dir=str(tmp_path / "other"), resume_from_checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"cannot resume from .*checkpoint-9: (.|\n)*crf\.transitions"):
        fit(other)


def test_an_earlier_checkpoint_is_refused_while_later_ones_stand_beside_it(stopped: Run) -> None:
    earlier = replace(stopped, resume_from_checkpoint=str(Path(stopped.folder.path, "checkpoint-3")))
    with pytest.raises(
        ValueError, match=r"checkpoint-3 is not the latest checkpoint of this run: remove checkpoint-6, checkpoint-9"
    ):
        fit(earlier)
    for step in (6, 9):
        shutil.rmtree(Path(stopped.folder.path, f"checkpoint-{step}"))
    assert fit(earlier)[0] == 12


class Code:
    """What an attacker would put into a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def test_a_checkpoint_cannot_run_code(stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"progress": Code()}, Path(stopped.folder.path, "checkpoint-9", "training_state.pt"))
    with pytest.raises(ValueError, match=r"training_state\.pt holds objects other than tensors and plain values"):
        fit(stopped)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 3e-4}, "--learning_rate 0.0003 (before 0.002)"),
        ({"crf_learning_rate": 0.5}, "--crf_learning_rate 0.5 (before 0.001)"),
        ({"weight_decay": 0.0}, "--weight_decay 0.0 (before 0.01)"),
        ({"freeze_layers": 1}, "--freeze_layers 1 (before 0)"),
        ({"optim": "adamw_torch"}, "--optim adamw_torch (before adamw_torch_fused)"),
    ],
)
def test_a_flag_that_the_optimiser_would_keep_is_refused(stopped: Run, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(said)} cannot change: .*checkpoint-9 overrides them"):
        fit(replace(stopped, **changes))


@pytest.mark.parametrize(
    "changes", [{"word_pooling": "mean"}, {"last_layers": 2}, {"word_dropout": 0.5}, {"class_weights": "O=2"}]
)
def test_a_flag_that_would_make_another_model_is_refused(stopped: Run, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r" cannot change: the model of .*checkpoint-9 is trained with the former"):
        fit(replace(stopped, **changes))
