"""Averaged weights and adversarial training under Lightning."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers import write_corpus
from tests.lightning_runs.lightning_runs import CrashError, call_lightning, crash_in, ner_options, read_scores
from tools.train import Training

WATCHED = "classifier.weight"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pl_averaging")
    write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    return home


def options(encoder: Path, home: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Eight steps an epoch, two rounds each, two epochs."""
    sizes = {"train_batch_size": 4, "accumulate_grad_batches": 2, "max_epochs": 2, "save_steps": 3}
    return ner_options(encoder, home / "corpus", home, **sizes) | {"output_dir": home / name} | changes


@contextmanager
def weights_of_steps() -> Iterator[list[Tensor]]:
    """The watched weights after each optimiser step of a run, in that order."""
    seen: list[Tensor] = []
    end_step = Training.end_step

    def look(self: Training, *arguments: Any) -> None:
        end_step(self, *arguments)
        seen.append(self.state.model.get_parameter(WATCHED).detach().clone())

    with patch.object(Training, "end_step", look):
        yield seen


def best_of(folder: Path) -> Tensor:
    return load_file(folder / "model.safetensors")[WATCHED]


def last_of(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return checkpoint


def test_the_best_model_is_the_mean_and_the_last_checkpoint_the_weights(encoder: Path, home: Path) -> None:
    chosen = options(encoder, home, "swa", max_epochs=1, averaging="swa", swa_start=0.25)
    with weights_of_steps() as weights:
        call_lightning("run_pl_ner", **chosen)
    assert len(weights) == 8
    mean = torch.stack(weights[2:]).mean(0)
    torch.testing.assert_close(best_of(home / "swa"), mean)
    assert torch.equal(last_of(home / "swa")["state_dict"][f"model.{WATCHED}"], weights[-1])
    assert not torch.allclose(mean, weights[-1])


def test_a_mean_that_forgets_at_once_changes_nothing(encoder: Path, home: Path) -> None:
    call_lightning("run_pl_ner", **options(encoder, home, "plain"))
    call_lightning("run_pl_ner", **options(encoder, home, "forgets", averaging="ema", ema_decay=0.0))
    assert read_scores(home / "forgets") == read_scores(home / "plain")
    assert torch.equal(best_of(home / "forgets"), best_of(home / "plain"))


def test_embeddings_are_disturbed_as_far_as_asked(encoder: Path, home: Path) -> None:
    ends = []
    for epsilon in (1e-6, 1.0):
        with weights_of_steps() as weights:
            call_lightning("run_pl_ner", **options(encoder, home, f"fgm {epsilon}", do_adv=True, adv_epsilon=epsilon))
        ends.append(weights[-1])
    assert not torch.allclose(ends[0], ends[1])


# Batches: 16 an epoch; each looks at the loss twice.
@pytest.mark.parametrize(
    ("hook", "call"),
    [("training_step", 11), ("training_step", 27), ("score_dev", 1), ("save_checkpoint", 3)],
    ids=["in the first epoch", "in the second", "while scoring", "after scoring"],
)
def test_a_crash_changes_nothing(hook: str, call: int, encoder: Path, home: Path) -> None:
    chosen = {"averaging": "ema", "ema_decay": 0.9, "do_adv": True}
    name = f"{hook} {call}"
    if not (home / "undisturbed").exists():
        call_lightning("run_pl_ner", **options(encoder, home, "undisturbed", **chosen))
    with crash_in(hook, call), pytest.raises(CrashError):
        call_lightning("run_pl_ner", **options(encoder, home, name, **chosen))
    call_lightning("run_pl_ner", **options(encoder, home, name, resume_from_checkpoint="auto", **chosen))
    assert read_scores(home / name) == read_scores(home / "undisturbed")
    assert torch.equal(best_of(home / name), best_of(home / "undisturbed"))
    ours, theirs = last_of(home / name), last_of(home / "undisturbed")
    assert all(torch.equal(ours["state_dict"][key], weight) for key, weight in theirs["state_dict"].items())
    means = [one["training"]["callbacks"]["ExponentialAverage"]["means"] for one in (ours, theirs)]
    assert all(torch.equal(our, their) for our, their in zip(*means, strict=True))


def test_another_averaging_is_refused(encoder: Path, home: Path) -> None:
    if not (home / "plain").exists():
        call_lightning("run_pl_ner", **options(encoder, home, "plain"))
    chosen = options(encoder, home, "other", averaging="swa", resume_from_checkpoint=home / "plain" / "last.ckpt")
    with pytest.raises(SystemExit, match="was trained with --averaging none, not swa: use the same value"):
        call_lightning("run_pl_ner", **chosen)
