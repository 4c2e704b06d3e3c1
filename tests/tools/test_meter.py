"""What the loop measures: throughput, utilisation, and steps whose loss or gradients are not finite."""

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from analysis.report.run_data import read_scalars
from common.memory import peak_memory
from models import BertCrfForNer
from tests.callbacks.states import state_of
from tests.helpers import write_corpus
from tests.models.families import FAMILIES, tiny_tagger
from tests.tools.interrupted import fit_with_interruption, signal_in_step
from tests.tools.ranks import on_ranks
from tests.tools.runs import call_script, fit, read_json, replace
from tools.distributed import Interrupted, rank
from tools.meter import Meter, _forward_flops, encoder_cost, peak_flops
from tools.precision import GradientStep, Precision
from tools.run import Run


def counted(*losses: float) -> Meter:
    """A step for each loss, of 10 words, and of 12 tokens in 2 rows of 8."""
    meter = Meter(torch.device("cpu"), peak_flops=1e9)
    for loss in losses:
        meter.add_loss(torch.tensor(loss))
        meter.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
    return meter


def test_means_are_those_since_the_last_report() -> None:
    state, meter = state_of(), counted(2.0, 4.0)
    meter.report(state)
    assert state.loss == 3
    assert state.padding_share == 0.25
    assert state.tokens_per_second == pytest.approx(1.2 * state.words_per_second)
    assert state.utilisation == pytest.approx(state.words_per_second * 1e5 / 1e9)
    meter.add_loss(torch.tensor(7.0))
    meter.add_step(words=10, tokens=8, computed_tokens=8, flops=1e6)
    meter.report(state)
    assert (state.loss, state.padding_share) == (7, 0)
    assert (meter.total.loss, meter.total.steps, meter.total.words) == (13, 3, 30)


def test_a_step_that_was_left_out_does_not_spoil_the_mean() -> None:
    state = state_of()
    counted(2.0, float("nan"), float("inf")).report(state)
    assert state.loss == pytest.approx(2 / 3)


def test_a_pause_does_not_count() -> None:
    state, meter = state_of(), counted(1.0)
    with meter.paused():
        time.sleep(0.2)
    meter.report(state)
    assert state.words_per_second > 10 / 0.2


def test_the_first_step_of_a_process_does_not_count_as_speed() -> None:
    state, meter = state_of(), Meter(torch.device("cpu"), peak_flops=1e9)
    for pause in (0.3, 0.01):
        time.sleep(pause)
        meter.add_loss(torch.tensor(1.0))
        meter.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
    meter.report(state)
    assert 10 / 0.2 < state.words_per_second < 10 / 0.01
    assert state.tokens_per_second == pytest.approx(1.2 * state.words_per_second)
    assert meter.words_per_second == state.words_per_second
    assert meter.total.seconds > 0.3
    assert (meter.total.words, state.padding_share) == (20, 0.25)


def test_a_first_step_alone_is_all_that_can_be_said() -> None:
    state, meter = state_of(), Meter(torch.device("cpu"), peak_flops=1e9)
    time.sleep(0.1)
    meter.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
    meter.report(state)
    assert 0 < state.words_per_second < 10 / 0.1


def test_each_process_of_a_resumed_run_has_a_first_step() -> None:
    meter, state = counted(2.0, 4.0), state_of()
    for _ in range(2):
        resumed = Meter(torch.device("cpu"), peak_flops=1e9)
        resumed.load_state_dict(meter.state_dict())
        time.sleep(0.2)
        for _ in range(2):
            resumed.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
        meter = resumed
    meter.report(state)
    assert state.words_per_second > 10 / 0.2
    assert meter.total.seconds > 0.4


@pytest.mark.parametrize("reported", [True, False])
def test_it_goes_on_with_what_another_one_counted(reported: bool) -> None:
    before, after, state = counted(2.0, 4.0), Meter(torch.device("cpu"), peak_flops=1e9), state_of()
    if reported:
        before.report(state)
    after.load_state_dict(before.state_dict())
    after.add_loss(torch.tensor(6.0))
    after.add_step(words=10, tokens=12, computed_tokens=16, flops=1e6)
    after.report(state)
    assert state.loss == (6 if reported else 4)
    assert (after.total.loss, after.total.steps, after.total.computed_tokens) == (12, 3, 48)


def test_the_cost_of_bert_is_that_of_its_formula() -> None:
    """A multiplication and an addition for each weight of a layer, and the attention (Kaplan et al. 2020, table 1)."""
    model = tiny_tagger(BertCrfForNer)
    matrices = [weight for name, weight in model.named_parameters() if ".layer." in name and weight.ndim == 2]
    cost = encoder_cost(model)
    assert cost.token == pytest.approx(2 * sum(weight.numel() for weight in matrices))
    assert cost.pair == pytest.approx(2 * 2 * model.config.num_hidden_layers * model.config.hidden_size)
    tokens = np.array([5, 7], np.int32)
    assert cost.of_training(tokens) == pytest.approx(3 * (12 * cost.token + 74 * cost.pair))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cost_of_other_windows_follows(family: str) -> None:
    model = tiny_tagger(BertCrfForNer, family)
    cost = encoder_cost(model)
    counted = [_forward_flops(model, tokens) - cost.token * tokens - cost.pair * tokens**2 for tokens in (12, 20, 28)]
    assert counted == pytest.approx([counted[0]] * 3, abs=1)  # of DeBERTa's relative positions, once a batch
    assert (abs(counted[0]) < 1) == (family != "deberta-v2")


def test_counting_changes_neither_the_mode_nor_the_random_numbers() -> None:
    model = tiny_tagger(BertCrfForNer).train()
    before = torch.get_rng_state()
    encoder_cost(model)
    peak_flops(torch.device("cpu"), torch.float32, 0)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_can_do_more_than_nothing(dtype: torch.dtype) -> None:
    assert 1e7 < peak_flops(torch.device("cpu"), dtype, 0) < 1e15


def test_the_memory_is_that_of_the_process() -> None:
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(2**28 // 4 * 2)  # half a GiB, more than there was
    assert held.sum() > 0
    assert 0.01 < before <= peak_memory(torch.device("cpu")) < 1000


@pytest.fixture
def args(crf_args: Run) -> Run:
    return replace(crf_args, evaluate_during_training=False, max_steps=6, log_loss_steps=1)


@contextmanager
def poisoned(steps: range, poison: Callable[[Tensor], Tensor]) -> Iterator[list[dict[str, Tensor]]]:
    """Changes the losses of some steps; yields the weights after each step."""
    true_losses, step = BertCrfForNer.losses, GradientStep.step
    weights: list[dict[str, Tensor]] = []

    def losses(model: BertCrfForNer, *inputs: Tensor) -> Tensor:
        found = true_losses(model, *inputs)
        return poison(found) if model.training and len(weights) + 1 in steps else found

    def recorded(gradients: GradientStep) -> None:
        step(gradients)
        weights.append({name: weight.detach().clone() for name, weight in gradients.model.named_parameters()})

    with patch.object(BertCrfForNer, "losses", losses), patch.object(GradientStep, "step", recorded):
        yield weights


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return any(not torch.equal(before[name], after[name]) for name in before)


POISONS = {
    "loss": lambda losses: losses + torch.inf,  # whose gradient is finite
    "gradient": lambda losses: losses + (losses - losses.detach()) * torch.inf,
    "nan": lambda losses: losses * torch.nan,
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
@pytest.mark.parametrize("rounds", [1, 2])
def test_such_a_step_changes_no_weight_and_is_counted(
    args: Run, rounds: int, poison: Callable[[Tensor], Tensor]
) -> None:
    args = replace(args, gradient_accumulation_steps=rounds, per_gpu_train_batch_size=8 // rounds)
    with poisoned(range(3, 5), poison) as weights:
        steps, loss, _ = fit(args)
    assert [changed(*pair) for pair in itertools.pairwise(weights)] == [True, False, False, True, True]
    assert steps == 6
    assert math.isfinite(loss)


def test_a_single_bad_sentence_is_enough(args: Run) -> None:
    def first_of_batch(losses: Tensor) -> Tensor:
        return losses * torch.where(torch.arange(len(losses)) == 0, torch.inf, 1.0)

    with poisoned(range(2, 3), first_of_batch) as weights:
        fit(args)
    assert not changed(weights[0], weights[1])
    assert changed(weights[1], weights[2])


def test_the_curves_show_finite_means(args: Run) -> None:
    with poisoned(range(3, 4), POISONS["nan"]):
        fit(replace(args, log_loss_steps=2))
    losses = read_scalars(Path(args.folder.path, "tensorboard"))["train/loss"]
    assert list(losses) == [2, 4, 6]
    assert all(math.isfinite(loss) for loss in losses.values())


def test_too_many_in_a_row_end_the_training_with_their_batches_written_down(args: Run) -> None:
    expected = r"3 steps in a row \(2 to 4\) were not finite; lower --learning_rate.*nonfinite_steps\.json"
    with poisoned(range(2, 7), POISONS["nan"]), pytest.raises(FloatingPointError, match=expected):
        fit(replace(args, max_nonfinite_steps=3))
    suspects = read_json(args.folder.nonfinite_steps)
    assert [step["step"] for step in suspects] == [2, 3, 4]
    assert {step["gradient_norm"] for step in suspects} == {"nan"}
    corpus = Path(args.settings.data.data_dir, "train.txt").read_text("utf-8")
    for window in (window for step in suspects for window in step["windows"]):
        assert all(0 <= one["first_word"] <= one["last_word"] < len(window["words"]) for one in window["entities"])
        assert "\n".join(line.split()[0] for line in corpus.splitlines() if line).find("\n".join(window["words"])) >= 0
        assert window["tokens"][0] == "[CLS]"


def test_others_in_between_do_not_count_as_in_a_row(args: Run) -> None:
    with poisoned(range(2, 4), POISONS["nan"]):
        assert fit(replace(args, max_nonfinite_steps=3))[0] == 6


def test_steps_in_a_row_are_counted_over_an_interruption(args: Run) -> None:
    args = replace(args, max_nonfinite_steps=3)
    with poisoned(range(2, 7), POISONS["nan"]), signal_in_step(3), pytest.raises(Interrupted):
        fit(args)
    expected = r"3 steps in a row \(2 to 4\) were not finite"
    with poisoned(range(1, 4), POISONS["nan"]), pytest.raises(FloatingPointError, match=expected):
        fit(replace(args, resume_from_checkpoint="auto"))
    suspects = read_json(args.folder.nonfinite_steps)
    assert [step["step"] for step in suspects] == [2, 3, 4]
    assert all(window["words"] for step in suspects for window in step["windows"])


def test_a_checkpoint_between_two_logs_loses_no_norm(args: Run, tmp_path: Path) -> None:
    def logged_norms(run: Run) -> dict[int, float]:
        return read_scalars(Path(run.folder.path, "tensorboard"))["train/gradient_norm"]

    undisturbed = replace(args, log_loss_steps=3, output_dir=str(tmp_path / "undisturbed"))
    fit(undisturbed)
    interrupted = replace(args, log_loss_steps=3, save_steps=1)
    fit_with_interruption(interrupted, 2)
    assert list(logged_norms(undisturbed)) == [3, 6]
    assert logged_norms(interrupted) == pytest.approx(logged_norms(undisturbed), rel=1e-6)


def test_a_run_that_diverges_ends_with_a_message(args: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate that makes the weights infinite, as a user would see it."""
    corpus = write_corpus(tmp_path / "corpus", {"train": 60})
    options = {"data_dir": corpus, "learning_rate": 2e9, "max_nonfinite_steps": 2, "warmup_proportion": 0.0}
    given = {name: value for name, value in args.settings.flat().items() if value != ""}
    with pytest.raises(SystemExit) as end:
        call_script("run_ner_crf", **{**given, **options})
    assert re.search(r"error: loss or gradients of 2 steps in a row", str(end.value))


def _steps_of_a_rank_with_an_infinite_loss() -> list[tuple[bool, bool]]:
    """Whether each step's norm was finite, and whether the weights stayed; one rank's first loss is infinite."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    step = GradientStep(Precision(torch.device("cpu")), model, torch.optim.AdamW(model.parameters(), fused=True))
    parallel = DistributedDataParallel(model)
    found = []
    for poison in (torch.inf if rank() == 1 else 0.0, 0.0):
        step.backward(parallel(torch.ones(2, 3)).sum() + poison)
        norm = step.clip(1.0)
        step.step()
        found.append((bool(norm.isfinite()), torch.equal(before, model.weight)))
    return found


def test_the_infinite_loss_of_one_rank_stops_the_step_of_all() -> None:
    assert on_ranks(2, _steps_of_a_rank_with_an_infinite_loss) == 2 * [[(False, True), (True, False)]]
