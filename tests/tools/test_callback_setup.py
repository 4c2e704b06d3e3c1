"""Trainings with callbacks that the arguments ask for."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tools.train
from analysis.metrics import EntityScores, Score
from analysis.report.run_data import read_scalars
from tests.callbacks.events import read_images, read_texts
from tests.helpers import ROOT
from tests.tools.interrupted import fit_with_interruption
from tests.tools.runs import crf, encoder_without_dropout, fit, largest_difference, replace
from tools.evaluate import SplitScores
from tools.meter import Meter
from tools.run import Run

STEPS_PER_EPOCH = 8


@pytest.fixture
def args(crf_args: Run) -> Run:
    """Up to 20 steps, dev scored after every second."""
    return replace(crf_args, max_steps=20, logging_steps=2)


@pytest.fixture
def vain_args(args: Run) -> Run:
    """No step changes anything, so no score is better than the first."""
    return replace(args, learning_rate=0.0, crf_learning_rate=0.0, early_stopping_patience=3)


def scalars_of(args: Run) -> dict[str, dict[int, float]]:
    return read_scalars(Path(args.folder.path, "tensorboard"))


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name, weight in left.items() if not torch.equal(weight, right[name])] == []


def test_a_training_in_vain_ends_early(vain_args: Run) -> None:
    steps, loss, _ = fit(replace(vain_args, save_steps=100))
    assert steps == 8
    assert list(scalars_of(vain_args)["dev/f1"]) == [2, 4, 6, 8]
    assert 0 < loss < 10
    assert Path(vain_args.folder.path, "checkpoint-8").is_dir()


@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_resumed_run_stops_where_the_undisturbed_one_does(vain_args: Run, tmp_path: Path, step: int) -> None:
    steps, loss, weights = fit(replace(vain_args, output_dir=str(tmp_path / "undisturbed")))
    resumed_steps, resumed_loss, resumed_weights = fit_with_interruption(vain_args, step)
    assert resumed_steps == steps == 8
    assert resumed_loss == pytest.approx(loss, rel=1e-6)
    assert_equal(resumed_weights, weights)


def test_a_run_that_had_stopped_goes_on_with_more_patience(vain_args: Run) -> None:
    args = replace(vain_args, save_steps=4)
    assert fit(args)[0] == 8
    assert fit(replace(args, early_stopping_patience=5, resume_from_checkpoint="auto"))[0] == 12
    assert fit(replace(args, early_stopping_patience=0, resume_from_checkpoint="auto"))[0] == 20


def test_a_run_that_had_stopped_stays_stopped(vain_args: Run) -> None:
    args = replace(vain_args, save_steps=4)
    steps, loss, weights = fit(args)
    again = fit(replace(args, resume_from_checkpoint="auto"))
    assert again[0] == steps == 8
    assert again[1] == pytest.approx(loss, rel=1e-6)
    assert_equal(again[2], weights)


def test_the_best_model_is_chosen_by_the_metric(args: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = iter([(0.6, 0.1), (0.3, 0.2), (0.5, 0.9), (0.4, 0.8)])

    def scores(*_: object) -> SplitScores:
        loss, f1 = next(scripted)
        return SplitScores(EntityScores(Score(f1=f1)), loss)

    monkeypatch.setattr(tools.train, "score_dataset", scores)
    _, _, weights = fit(replace(args, metric_for_best_model="loss", save_steps=2, max_steps=8))
    assert_equal(weights, load_file(Path(args.folder.path, "checkpoint-4", "model.safetensors")))


@pytest.mark.parametrize("averaging", [{"averaging": "ema"}, {"averaging": "swa", "swa_start": 0.25}])
def test_the_best_model_is_the_mean_and_the_training_takes_its_course(args: Run, averaging: dict[str, Any]) -> None:
    args = replace(args, max_steps=6, save_steps=3)
    plain_folder = f"{args.folder.path} plain"
    fit(replace(args, output_dir=plain_folder))
    _, _, weights = fit(replace(args, **averaging))
    best = load_file(Path(args.folder.path, "checkpoint-best", "model.safetensors"))
    assert_equal(weights, best)
    for checkpoint in ("checkpoint-3", "checkpoint-6"):  # hold the weights themselves
        raw = load_file(Path(args.folder.path, checkpoint, "model.safetensors"))
        assert_equal(raw, load_file(Path(plain_folder, checkpoint, "model.safetensors")))
        assert largest_difference(raw, best) > 1e-5


def test_without_a_look_at_dev_the_mean_stays(args: Run) -> None:
    args = replace(args, evaluate_during_training=False, max_steps=6, save_steps=1, averaging="swa", swa_start=0.5)
    _, _, weights = fit(args)
    last = [load_file(Path(args.folder.path, f"checkpoint-{step}", "model.safetensors")) for step in (4, 5, 6)]
    for name, weight in weights.items():
        torch.testing.assert_close(weight, torch.stack([one[name] for one in last]).mean(0), msg=name)


@pytest.mark.parametrize("averaging", ["ema", "swa"])
@pytest.mark.parametrize("step", [2, 17])
def test_an_interrupted_mean_goes_on(args: Run, tmp_path: Path, averaging: str, step: int) -> None:
    args = replace(args, averaging=averaging, evaluate_during_training=False)
    undisturbed = fit(replace(args, output_dir=str(tmp_path / "undisturbed")))
    assert_equal(fit_with_interruption(args, step)[2], undisturbed[2])


def test_frozen_layers_are_their_own_mean(args: Run) -> None:
    args = replace(args, averaging="ema", freeze_layers=1, freeze_embeddings=True, max_steps=4)
    before = fit(replace(args, max_steps=1, warmup_steps=1))[2]
    after = fit(args)[2]
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if "embeddings" in name or ".layer.0." in name}


@pytest.fixture
def steady_args(args: Run, encoder: Path, tmp_path: Path) -> Run:
    """Without dropout, clipping, or looks at dev."""
    steady = encoder_without_dropout(encoder, tmp_path / "steady")
    return replace(args, model_name_or_path=str(steady), max_grad_norm=0.0, max_steps=4, evaluate_during_training=False)


def test_one_step_of_pgd_is_fgm_and_more_are_not(steady_args: Run) -> None:
    args = replace(steady_args, do_adv=True, adv_epsilon=0.5)
    fgm = fit(args)[2]
    pgd = replace(args, adv_type="pgd", adv_alpha=0.5, adv_steps=1)
    assert_equal(fit(pgd)[2], fgm)
    assert largest_difference(fit(replace(pgd, adv_steps=2))[2], fgm) > 1e-5


def test_rdrop_changes_the_course_only_where_there_is_dropout(args: Run, steady_args: Run) -> None:
    assert largest_difference(fit(steady_args)[2], fit(replace(steady_args, rdrop_alpha=4.0))[2]) < 1e-5
    args = replace(args, max_steps=4, evaluate_during_training=False)
    assert largest_difference(fit(replace(args, rdrop_alpha=0.1))[2], fit(replace(args, rdrop_alpha=4.0))[2]) > 1e-4


def test_rdrop_divides_by_the_words_of_the_whole_step(steady_args: Run) -> None:
    """With weights that move in proportion to the gradient, since so large an epsilon makes Adam divide by one."""
    args = replace(steady_args, learning_rate=0.1, crf_learning_rate=0.1, adam_epsilon=1.0, rdrop_alpha=4.0)
    whole = fit(replace(args, per_gpu_train_batch_size=16))
    rounds = fit(replace(args, per_gpu_train_batch_size=8, gradient_accumulation_steps=2))
    assert rounds[1] == pytest.approx(whole[1], rel=1e-5)
    assert largest_difference(rounds[2], whole[2]) < 1e-5


def test_pgd_goes_on_after_an_interruption(args: Run, tmp_path: Path) -> None:
    args = replace(args, do_adv=True, adv_type="pgd", gradient_accumulation_steps=2, max_steps=5)
    undisturbed = fit(replace(args, output_dir=str(tmp_path / "undisturbed")))
    assert_equal(fit_with_interruption(args, 3)[2], undisturbed[2])


def test_a_run_draws_all_that_there_is_to_see(args: Run) -> None:
    fit(replace(args, max_steps=4, log_loss_steps=2))
    scalars, folder = scalars_of(args), Path(args.folder.path, "tensorboard")
    train = ("gradient_norm", "words_per_second", "padding_share", "utilisation", "memory_gib", "skipped_steps")
    for name in train:
        assert list(scalars[f"train/{name}"]) == [2, 4], name
        assert scalars[f"train/{name}"][4] > 0 or name == "skipped_steps", name
    assert scalars["train/utilisation"][4] < 1
    assert {f"dev_types/{kind}/f1" for kind in ("PER", "LOC", "ORG")} <= scalars.keys()
    assert scalars["final/f1"][4] == max(scalars["dev/f1"].values())
    assert "| text | gold | predicted |" in read_texts(folder)["dev/examples"][4]
    assert list(read_images(folder)["crf/transitions"]) == [4]


def test_what_is_computed_more_often_counts_more_often(steady_args: Run) -> None:
    """Two passes and more a batch make use of the device as one does, though they take longer."""
    counted: list[float] = []

    class Count(Meter):
        def add_step(self, words: int, tokens: int, computed_tokens: int, flops: float) -> None:
            counted.append(flops)
            super().add_step(words, tokens, computed_tokens, flops)

    changes: list[dict[str, Any]] = [
        {},
        {"rdrop_alpha": 1.0},
        {"do_adv": True},
        {"do_adv": True, "adv_type": "pgd", "gradient_accumulation_steps": 2, "per_gpu_train_batch_size": 4},
    ]
    with patch.object(tools.train, "Meter", Count):
        for one in changes:
            fit(replace(steady_args, max_steps=1, **one))
    assert [flops / counted[0] for flops in counted] == pytest.approx([1, 2, 2, 4])


def test_no_reporter_leaves_no_events(args: Run) -> None:
    fit(replace(args, max_steps=2, report_to="none"))
    assert not Path(args.folder.path, "tensorboard").exists()


def test_the_callback_of_the_documentation_works(args: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "callbacks.md").read_text("utf-8")
    example = page.partition("```python\n# my_callbacks.py\n")[2].partition("```")[0]
    assert len(example.strip().splitlines()) <= 15
    (tmp_path / "my_callbacks.py").write_text(example.replace("0.95", "0.2"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    steps, _, _ = fit(replace(args, callback="my_callbacks:Notebook", max_steps=60, learning_rate=5e-3))
    written = [line.split() for line in (tmp_path / "f1.txt").read_text().splitlines()]
    assert [int(step) for step, _ in written] == list(range(2, steps + 1, 2))
    assert steps < 60
    assert [float(f1) > 0.2 for _, f1 in written] == [False] * (len(written) - 1) + [True]


def test_every_flag_of_the_documentation_is_one() -> None:
    pages = "".join((ROOT / "docs" / name).read_text("utf-8") for name in ("training.md", "callbacks.md"))
    named = set(re.findall(r"--(\w+)", pages)) - {"logdir", "help", "help_all"}
    named -= {"encoder", "keep_layers", "markdown", "loss"}  # of other commands, and of another head
    assert len(named) > 25
    assert named <= crf().settings.flat().keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Mine", "No module named 'nowhere'; write module:name"),
        ("callbacks:Mine", "no attribute 'Mine'; write module:name"),
        ("callbacks", "write module:name"),
        ("pathlib:Path", "not a subclass of callbacks.Callback"),
    ],
)
def test_what_is_no_callback_is_refused(args: Run, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"--callback {name}: .*{message}|--callback {name}: {message}"):
        fit(replace(args, callback=name))
