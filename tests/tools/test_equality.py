"""The mathematics does not depend on how many processes share it."""

import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from analysis.report.run_data import read_scalars
from models import BertCrfForNer
from tests.helpers import write_corpus
from tests.tools.ranks import each_on_ranks, on_ranks
from tests.tools.runs import FinishedRun, call_script, crf, encoder_without_dropout, fit, replace
from tools.run import Run

GLOBAL_BATCH = 8
STEPS = 3
ROUNDS = (1, 2)


class Learned(NamedTuple):
    """What a rank saw of a training.

    Args:
        gradients: before each step, ``(steps, parameters)``.
        weights: after the last, ``(parameters,)``.
        words: of this rank in each step.
    """

    gradients: NDArray[np.float32]
    weights: NDArray[np.float32]
    words: list[int]


def learn(args: Run) -> Learned:
    """Trains as a script does, and keeps the gradients that the optimiser is given."""
    gradients: list[NDArray[np.float32]] = []
    words: list[int] = []
    forward = BertCrfForNer.forward

    def keep_gradients(optimizer: Optimizer, *_: object) -> None:
        groups = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        gradients.append(torch.cat([gradient.flatten() for gradient in groups if gradient is not None]).numpy().copy())

    hook = register_optimizer_step_pre_hook(keep_gradients)
    with pytest.MonkeyPatch.context() as patch:

        def count_words(model: BertCrfForNer, **inputs: Any) -> Any:
            words.append(int(inputs["word_mask"].sum()))
            return forward(model, **inputs)

        patch.setattr(BertCrfForNer, "forward", count_words)
        _, _, weights = fit(args)
    hook.remove()
    return Learned(np.stack(gradients), torch.cat([one.flatten() for one in weights.values()]).numpy(), words)


@pytest.fixture(scope="module")
def whole(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Steps of eight windows by one process at once; gradients as they are, unclipped."""
    home = tmp_path_factory.mktemp("equality")
    write_corpus(home / "corpus", {"train": 60})
    return crf(
        task_name="tiny",
        data_dir=str(home / "corpus"),
        output_dir=str(home / "whole"),
        model_name_or_path=str(encoder_without_dropout(encoder, home / "encoder")),
        feature_cache_dir=str(home / "cache"),
        from_scratch=True,
        do_train=True,
        evaluate_during_training=False,
        max_steps=STEPS,
        per_gpu_train_batch_size=GLOBAL_BATCH,
        max_grad_norm=0.0,
        log_loss_steps=1,
        no_cuda=True,
    )


@pytest.fixture(scope="module")
def at_once(whole: Run) -> Learned:
    (learned,) = on_ranks(1, learn, whole)
    return learned


def losses(args: Run) -> list[float]:
    return list(read_scalars(Path(args.folder.path, "tensorboard"))["train/loss"].values())


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_loss_gradients_and_weights_are_those_of_one_process(processes: int, whole: Run, at_once: Learned) -> None:
    runs = []
    for rounds in ROUNDS:
        sizes = {
            "per_gpu_train_batch_size": GLOBAL_BATCH // processes // rounds,
            "gradient_accumulation_steps": rounds,
        }
        runs.append(replace(whole, output_dir=f"{whole.folder.path}-{processes}-{rounds}", **sizes))
    for rounds, args, ranks in zip(ROUNDS, runs, each_on_ranks(processes, learn, runs), strict=True):
        assert_same_mathematics(f"{processes} processes x {rounds} rounds", args, ranks, whole, at_once)


def assert_same_mathematics(name: str, args: Run, ranks: list[Learned], whole: Run, at_once: Learned) -> None:
    assert len(ranks) == 1 or len({tuple(rank.words) for rank in ranks}) > 1  # equal shares would show nothing
    assert sum(sum(rank.words) for rank in ranks) == sum(at_once.words)
    for rank in ranks:
        assert np.array_equal(rank.gradients, ranks[0].gradients)
        assert np.array_equal(rank.weights, ranks[0].weights)
    norm = float(np.linalg.norm(at_once.gradients[0]))
    gradients = np.abs(ranks[0].gradients - at_once.gradients).max(axis=1) / norm
    weights = float(np.abs(ranks[0].weights - at_once.weights).max())
    loss = max(abs(one / other - 1) for one, other in zip(losses(args), losses(whole), strict=True))
    differences = f"loss {loss:.1e}, gradients {gradients[0]:.1e}, after {STEPS} steps weights {weights:.1e}"
    print(f"{name}: {differences}")  # shown by pytest -rP
    assert norm > 0.1
    assert gradients[0] < 1e-6
    assert gradients.max() < 1e-4  # later ones are of weights that differ
    assert weights < 1e-5
    assert loss < 1e-6


RESULTS = ("eval_results.json", "eval_results.txt", "test_results.json", "test_results.txt", "test_predictions.jsonl")


def score_and_predict(script: str, options: dict[str, object]) -> None:
    with redirect_stdout(StringIO()):
        call_script(script, **options)


@pytest.mark.parametrize(("trained", "processes"), [("softmax_run", 2), ("crf_run", 4)])
def test_scores_and_predictions_are_those_of_one_process_to_the_last_byte(
    trained: str, processes: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run: FinishedRun = request.getfixturevalue(trained)
    write_corpus(tmp_path / "corpus", {"dev": 21, "test": 3})  # neither divides, and 3 are fewer than 4 processes
    results = []
    for count in (1, processes):
        folder = tmp_path / f"by {count}"
        shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("*_results.*", "test_predictions.jsonl"))
        actions = {"do_eval": True, "do_predict": True, "per_gpu_eval_batch_size": 2, "eval_max_seq_length": 12}
        places = {"data_dir": tmp_path / "corpus", "output_dir": folder, "feature_cache_dir": f"{folder} cache"}
        on_ranks(count, score_and_predict, run.script, {**run.options, **places, **actions})
        results.append([(folder / name).read_bytes() for name in RESULTS])
    assert results[0] == results[1]
