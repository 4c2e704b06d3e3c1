"""The training loop and the batches that it is fed with."""

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tools.train
from analysis.metrics import EntityScores, Score
from analysis.report.run_data import read_scalars
from models.heads.softmax import LOSSES
from processors.features.batching import Step, StepFeed
from processors.features.dataset import FeatureDataset
from tests.helpers import write_corpus
from tests.tools.runs import (
    crf,
    encoder_without_dropout,
    fit,
    largest_difference,
    prepared,
    read_json,
    replace,
    softmax,
    split_of,
)
from tools.data import load_and_cache_examples
from tools.evaluate import SplitScores, evaluate
from tools.run import Run
from tools.train import train
from tools.training_settings import OptimisationSettings

STEPS_PER_EPOCH = 8  # 60 sentences in batches of 8


@pytest.fixture
def args(crf_args: Run) -> Run:
    """A short run without looks at dev."""
    return replace(crf_args, evaluate_during_training=False, max_steps=4)


@pytest.fixture
def steady_args(args: Run, encoder: Path, tmp_path: Path) -> Run:
    """Without dropout, and with steps proportional to the gradient: with so large an epsilon Adam divides by one."""
    steady = encoder_without_dropout(encoder, tmp_path / "steady")
    rates: dict[str, Any] = {"learning_rate": 0.1, "crf_learning_rate": 0.1, "adam_epsilon": 1.0}
    return replace(args, model_name_or_path=str(steady), max_grad_norm=0.0, **rates)


def initial_weights(args: Run) -> dict[str, Tensor]:
    args, model, _ = prepared(args)
    return dict(model.state_dict())


def scalars_of(args: Run) -> dict[str, dict[int, float]]:
    return read_scalars(Path(args.folder.path, "tensorboard"))


def checkpoints_of(args: Run) -> set[str]:
    return {path.name for path in args.folder.path.glob("checkpoint-*")}


def test_it_returns_steps_and_the_mean_loss(args: Run) -> None:
    steps, loss, _ = fit(replace(args, log_loss_steps=1))
    losses = scalars_of(args)["train/loss"]
    assert steps == 4
    assert list(losses) == [1, 2, 3, 4]
    assert loss == pytest.approx(sum(losses.values()) / 4, rel=1e-5)


@pytest.mark.parametrize("log_loss_steps", [3, 100, -1])
def test_the_mean_loss_does_not_depend_on_when_it_is_logged(args: Run, log_loss_steps: int) -> None:
    _, expected, _ = fit(replace(args, log_loss_steps=1))
    _, loss, _ = fit(replace(args, log_loss_steps=log_loss_steps))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_first_loss_is_that_of_guessing(args: Run) -> None:
    fit(replace(args, log_loss_steps=1, warmup_proportion=1.0, max_steps=1, crf_constraints=False))
    assert scalars_of(args)["train/loss"][1] == pytest.approx(math.log(10), rel=0.1)


@pytest.mark.parametrize("head", ["crf", *LOSSES])
def test_the_loss_falls(head: str, crf_args: Run, softmax_args: Run) -> None:
    args: Run = crf_args if head == "crf" else replace(softmax_args, loss=head)
    fit(replace(args, evaluate_during_training=False, log_loss_steps=STEPS_PER_EPOCH, num_train_epochs=4.0))
    losses = list(scalars_of(args)["train/loss"].values())
    assert len(losses) == 4
    assert losses[-1] < (0.8 if head == "lsr" else 0.5) * losses[0]


def test_the_same_seed_gives_the_same_weights_bit_for_bit(args: Run) -> None:
    first, second, other = fit(args)[2], fit(args)[2], fit(replace(args, seed=43))[2]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert largest_difference(first, other) > 0


def test_each_epoch_has_its_own_order(steady_args: Run) -> None:
    still = replace(steady_args, learning_rate=0.0, crf_learning_rate=0.0, max_steps=2 * STEPS_PER_EPOCH)
    fit(replace(still, log_loss_steps=1))
    losses = list(scalars_of(still)["train/loss"].values())
    assert sorted(losses[:STEPS_PER_EPOCH]) != pytest.approx(sorted(losses[STEPS_PER_EPOCH:]), rel=1e-4)


def test_worker_processes_change_nothing(args: Run) -> None:
    here, there = fit(args), fit(replace(args, num_workers=1))
    assert here[1] == there[1]
    assert all(torch.equal(here[2][name], there[2][name]) for name in here[2])


@pytest.mark.parametrize("rounds", [2, 4])
def test_accumulated_small_batches_are_one_large_batch(steady_args: Run, rounds: int) -> None:
    shared: dict[str, Any] = {"gradient_accumulation_steps": rounds, "per_gpu_train_batch_size": 8 // rounds}
    start, large, small = initial_weights(steady_args), fit(steady_args), fit(replace(steady_args, **shared))
    assert small[0] == large[0]
    assert small[1] == pytest.approx(large[1], rel=1e-5)
    assert largest_difference(start, large[2]) > 1e-2
    assert largest_difference(small[2], large[2]) < 1e-5


def test_gradients_are_clipped(steady_args: Run) -> None:
    start = initial_weights(steady_args)
    unclipped = largest_difference(start, fit(steady_args)[2])
    clipped = largest_difference(start, fit(replace(steady_args, max_grad_norm=1e-3, weight_decay=0.0))[2])
    assert clipped < 0.01 * unclipped


def test_weights_decay_without_gradients(steady_args: Run) -> None:
    args = replace(steady_args, max_grad_norm=1e-9, max_steps=1, warmup_proportion=0.0, weight_decay=0.5)
    start, end = initial_weights(args), fit(args)[2]
    torch.testing.assert_close(end["classifier.weight"], 0.95 * start["classifier.weight"], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(end["crf.start_transitions"], start["crf.start_transitions"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 5}, 5),
        ({"max_steps": 11}, 11),
        ({"max_steps": 3, "num_train_epochs": 0.0}, 3),
        ({"max_steps": -1, "num_train_epochs": 1.0}, 8),
        ({"max_steps": -1, "num_train_epochs": 0.5}, 4),
        ({"max_steps": -1, "num_train_epochs": 1.25}, 10),
        ({"max_steps": -1, "num_train_epochs": 0.01}, 1),
        ({"max_steps": -1, "num_train_epochs": 1.0, "gradient_accumulation_steps": 2}, 4),
    ],
)
def test_it_takes_as_many_steps_as_asked(args: Run, changes: dict[str, Any], steps: int) -> None:
    args = replace(args, log_loss_steps=1, **changes)
    assert fit(args)[0] == steps
    assert list(scalars_of(args)["train/loss"]) == list(range(1, steps + 1))


@pytest.mark.parametrize(("epochs", "steps_per_epoch", "steps"), [(1.1, 110, 121), (0.07, 100, 7), (2.5, 3, 8)])
def test_rounding_adds_no_step(epochs: float, steps_per_epoch: int, steps: int) -> None:
    """1.1 * 110 is a little more than 121 in floating point."""
    assert tools.train.count_steps(OptimisationSettings(num_train_epochs=epochs), steps_per_epoch) == steps


def test_batches_may_be_bounded_by_tokens(args: Run) -> None:
    args = replace(args, max_batch_tokens=64, max_steps=-1, num_train_epochs=1.0)
    steps, _, _ = fit(args)
    assert STEPS_PER_EPOCH < steps < 60


def test_learning_rates_rise_and_fall(args: Run) -> None:
    fit(replace(args, log_loss_steps=1, warmup_proportion=0.5, learning_rate=1e-3, crf_learning_rate=1e-2))
    scalars = scalars_of(args)
    for part, rate in {"encoder": 1e-3, "head": 1e-2, "crf": 1e-2}.items():
        assert list(scalars[f"learning_rate/{part}"].values()) == pytest.approx([0.5 * rate, rate, 0.5 * rate, 0.0])


@pytest.mark.parametrize(
    ("logging_steps", "expected"), [(-1, [8, 16, 18]), (5, [5, 10, 15, 18]), (9, [9, 18]), (100, [18])]
)
def test_dev_is_scored_at_the_right_steps(crf_args: Run, logging_steps: int, expected: list[int]) -> None:
    fit(replace(crf_args, logging_steps=logging_steps, max_steps=18))
    scores = scalars_of(crf_args)
    assert list(scores["dev/f1"]) == expected
    assert {"dev/precision", "dev/recall", "dev/strict_f1", "dev/loss"} <= scores.keys()


@pytest.mark.parametrize(
    ("save_steps", "expected"),
    [
        (0, set()),
        (-1, {"checkpoint-8", "checkpoint-16", "checkpoint-17"}),
        (6, {"checkpoint-6", "checkpoint-12", "checkpoint-17"}),
    ],
)
def test_checkpoints_are_written_at_the_right_steps(args: Run, save_steps: int, expected: set[str]) -> None:
    fit(replace(args, save_steps=save_steps, max_steps=17))
    assert checkpoints_of(args) == expected
    for name in expected:
        folder = Path(args.folder.path, name)
        assert {"model.safetensors", "config.json", "tokenizer.json", "training_args.json"} <= {
            path.name for path in folder.iterdir()
        }


def test_without_looks_at_dev_no_best_is_kept(args: Run) -> None:
    fit(args)
    assert not checkpoints_of(args)
    assert "dev/f1" not in scalars_of(args)


def test_the_best_model_is_the_one_that_stays(crf_args: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = iter([0.3, 0.9, 0.5, 0.9])
    monkeypatch.setattr(
        tools.train, "score_dataset", lambda *_: SplitScores(EntityScores(Score(f1=next(scripted))), loss=1.0)
    )
    _, _, weights = fit(replace(crf_args, save_steps=4, logging_steps=4, max_steps=16))
    saved = {
        name: load_file(Path(crf_args.folder.path, name, "model.safetensors")) for name in checkpoints_of(crf_args)
    }
    assert largest_difference(weights, saved["checkpoint-best"]) == 0
    assert largest_difference(weights, saved["checkpoint-8"]) == 0
    assert largest_difference(weights, saved["checkpoint-16"]) > 0


def test_the_score_of_the_kept_model_is_the_best_seen(crf_args: Run) -> None:
    crf_args, model, tokenizer = prepared(replace(crf_args, num_train_epochs=5.0))
    dataset = load_and_cache_examples(crf_args, "tiny", tokenizer, "train")
    train(crf_args, dataset, model, tokenizer)
    seen = scalars_of(crf_args)["dev/f1"].values()
    assert evaluate(crf_args, model, tokenizer)["f1"] == pytest.approx(max(seen), abs=1e-6)
    assert max(seen) > 0.5


def test_looks_at_dev_do_not_change_the_training(crf_args: Run) -> None:
    seldom, often = replace(crf_args, max_steps=6, logging_steps=6), replace(crf_args, max_steps=6, logging_steps=1)
    losses = []
    for args in (seldom, often):
        fit(replace(args, log_loss_steps=1))
        losses.append(scalars_of(args)["train/loss"])
    assert losses[0] == losses[1]


def test_without_a_dev_split_the_last_model_is_kept(crf_args: Run, corpus_dir: Path) -> None:
    (corpus_dir / "dev.txt").unlink()
    stale = Path(crf_args.folder.path, "checkpoint-best")
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"of an earlier run")
    assert fit(replace(crf_args, max_steps=2))[0] == 2


def test_adversarial_training_changes_the_weights(args: Run) -> None:
    assert largest_difference(fit(args)[2], fit(replace(args, do_adv=True))[2]) > 1e-5


def test_adversarial_training_puts_the_embeddings_back(args: Run) -> None:
    still = replace(args, do_adv=True, learning_rate=0.0, crf_learning_rate=0.0, adv_epsilon=5.0)
    assert largest_difference(initial_weights(still), fit(still)[2]) == 0


def test_the_size_of_the_adversarial_step_matters(args: Run) -> None:
    small, large = (fit(replace(args, do_adv=True, adv_epsilon=epsilon))[2] for epsilon in (0.1, 2.0))
    assert largest_difference(small, large) > 1e-5


def test_an_adversarial_name_that_matches_nothing_is_an_error(args: Run) -> None:
    with pytest.raises(ValueError, match=r"'wte' \(--adv_name\); there are .*word_embeddings"):
        fit(replace(args, do_adv=True, adv_name="wte"))


def test_bfloat16_trains_almost_as_float32(steady_args: Run) -> None:
    _, exact, _ = fit(steady_args)
    _, half, weights = fit(replace(steady_args, bf16=True))
    assert half == pytest.approx(exact, rel=0.02)
    assert half != exact
    assert all(weight.dtype != torch.bfloat16 for weight in weights.values())


def test_long_documents_are_trained_on_in_windows(args: Run, corpus_dir: Path) -> None:
    sentences = (corpus_dir / "train.txt").read_text("utf-8").strip().split("\n\n")
    (corpus_dir / "train.txt").write_text("\n".join(sentences) + "\n", "utf-8")
    steps, loss, _ = fit(replace(args, max_steps=-1, num_train_epochs=1.0))
    words = sum(len(sentence.splitlines()) for sentence in sentences)
    assert steps >= words / 64 / 8
    assert 0 < loss < 3


def test_a_corpus_too_small_for_its_rounds_is_refused(args: Run, tmp_path: Path) -> None:
    data_dir = str(write_corpus(tmp_path / "two", {"train": 2}))
    with pytest.raises(ValueError, match=r"2 windows cannot fill 1 processes x 4 accumulation rounds"):
        fit(replace(args, data_dir=data_dir, gradient_accumulation_steps=4))


@pytest.mark.parametrize("changes", [{}, {"max_batch_tokens": 60}])
def test_the_loss_is_divided_by_the_words_of_its_own_step(args: Run, changes: dict[str, Any]) -> None:
    args = replace(args, max_steps=-1, num_train_epochs=3.0, gradient_accumulation_steps=2, **changes)
    args, model, tokenizer = prepared(args)
    dataset = load_and_cache_examples(args, args.corpus.task_name, tokenizer, "train")
    told, seen = [], []

    def watch(_: object, __: object, inputs: dict[str, Any]) -> None:
        told.append(inputs["num_items_in_batch"])
        seen.append(int(inputs["word_mask"].sum()))

    model.register_forward_pre_hook(watch, with_kwargs=True)
    train(args, dataset, model, tokenizer)
    assert told[::2] == told[1::2] == [first + second for first, second in zip(seen[::2], seen[1::2], strict=True)]


def test_what_came_of_it_is_written_down(args: Run) -> None:
    steps, loss, _ = fit(replace(args, log_loss_steps=3))
    results = read_json(args.folder.train_results)
    assert (results["steps"], results["loss"], results["skipped_steps"]) == (steps, loss, 0)
    assert results["best_score"] is None
    assert results["words_per_second"] > 0
    assert 0 < results["padding_share"] < 0.5


@pytest.mark.parametrize("head", [crf, softmax])
def test_a_small_last_step_is_the_same_where_some_of_its_batches_are_empty(
    head: Callable[..., Run], steady_args: Run, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "six", {"train": 6})  # a step of four, and one of two
    of_the_head = vars(steady_args.settings.head)
    options = {name: value for name, value in steady_args.settings.flat().items() if name not in of_the_head}
    options |= {"data_dir": str(corpus), "max_steps": -1, "num_train_epochs": 2.0, "log_loss_steps": 1}
    at_once = head(**options | {"per_gpu_train_batch_size": 4, "output_dir": str(tmp_path / "whole")})
    shared = head(
        **options
        | {"per_gpu_train_batch_size": 1, "gradient_accumulation_steps": 4, "output_dir": str(tmp_path / "shared")}
    )
    steps, loss, weights = fit(at_once)
    shared_steps, shared_loss, shared_weights = fit(shared)
    assert shared_steps == steps == 4
    assert shared_loss == pytest.approx(loss, rel=1e-5)
    assert largest_difference(weights, shared_weights) < 1e-5


@pytest.fixture
def dataset(crf_args: Run) -> FeatureDataset:
    return split_of(crf_args, "train")[2]


def feed_of(args: Run, dataset: FeatureDataset) -> StepFeed:
    return tools.train._step_feed(args.settings, dataset, n_gpu=0)


def windows_of(steps: list[Step]) -> list[list[int]]:
    return [step.windows.tolist() for step in steps]


def test_a_step_has_a_batch_for_each_round(crf_args: Run, dataset: FeatureDataset) -> None:
    feed = feed_of(replace(crf_args, gradient_accumulation_steps=3, per_gpu_train_batch_size=4), dataset)
    for step in feed.steps(feed.steps_per_epoch):
        assert len(step.batches) == 3
        words = sum(int(batch["word_mask"].sum()) for batch in step.batches)
        assert words == dataset.word_counts[step.windows].sum()


def test_epochs_follow_one_another(crf_args: Run, dataset: FeatureDataset) -> None:
    feed = feed_of(crf_args, dataset)
    epoch = feed.steps_per_epoch
    steps = windows_of(list(feed.steps(2 * epoch + 3)))
    assert len(steps) == 2 * epoch + 3
    for start in (0, epoch):
        seen = np.concatenate([np.array(step) for step in steps[start : start + epoch]])
        assert sorted(seen) == list(range(len(dataset)))
    assert steps[:epoch] != steps[epoch : 2 * epoch]


@pytest.mark.parametrize("max_batch_tokens", [0, 100])
def test_it_goes_on_from_any_step(crf_args: Run, dataset: FeatureDataset, max_batch_tokens: int) -> None:
    args = replace(crf_args, max_batch_tokens=max_batch_tokens)
    total = 2 * feed_of(args, dataset).steps_per_epoch + 3
    expected = windows_of(list(feed_of(args, dataset).steps(total)))
    for done in range(total):
        before, after = feed_of(args, dataset), feed_of(args, dataset)
        steps = windows_of(list(islice(before.steps(total), done)))
        after.load_state_dict(before.state_dict())
        assert steps + windows_of(list(after.steps(total - done))) == expected


def test_its_workers_do_not_disturb_the_random_numbers_of_dropout(crf_args: Run, dataset: FeatureDataset) -> None:
    before = torch.get_rng_state()
    list(feed_of(crf_args, dataset).steps(20))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_order_is_refused(crf_args: Run, dataset: FeatureDataset) -> None:
    saved = feed_of(crf_args, dataset).state_dict()
    with pytest.raises(ValueError, match="order of the training data has changed"):
        feed_of(replace(crf_args, seed=1), dataset).load_state_dict(saved)
