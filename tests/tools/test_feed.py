"""Steps of batches, over epochs, from any place on."""

from itertools import islice

import numpy as np
import pytest
import torch

from processors.features.dataset import FeatureDataset
from tests.tools.runs import replace, split_of
from tools.run import Run
from tools.train import Step, StepFeed


@pytest.fixture
def dataset(crf_args: Run) -> FeatureDataset:
    return split_of(crf_args, "train")[2]


def windows_of(steps: list[Step]) -> list[list[int]]:
    return [step.windows.tolist() for step in steps]


def test_a_step_has_a_batch_for_each_round(crf_args: Run, dataset: FeatureDataset) -> None:
    feed = StepFeed(
        replace(crf_args, gradient_accumulation_steps=3, per_gpu_train_batch_size=4).settings.optimisation, dataset
    )
    for step in feed.steps(feed.steps_per_epoch):
        assert len(step.batches) == 3
        words = sum(int(batch["word_mask"].sum()) for batch in step.batches)
        assert words == dataset.word_counts[step.windows].sum()


def test_epochs_follow_one_another(crf_args: Run, dataset: FeatureDataset) -> None:
    feed = StepFeed(crf_args.settings.optimisation, dataset)
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
    total = 2 * StepFeed(args.settings.optimisation, dataset).steps_per_epoch + 3
    expected = windows_of(list(StepFeed(args.settings.optimisation, dataset).steps(total)))
    for done in range(total):
        before, after = StepFeed(args.settings.optimisation, dataset), StepFeed(args.settings.optimisation, dataset)
        steps = windows_of(list(islice(before.steps(total), done)))
        after.load_state_dict(before.state_dict())
        assert steps + windows_of(list(after.steps(total - done))) == expected


def test_its_workers_do_not_disturb_the_random_numbers_of_dropout(crf_args: Run, dataset: FeatureDataset) -> None:
    before = torch.get_rng_state()
    list(StepFeed(crf_args.settings.optimisation, dataset).steps(20))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_order_is_refused(crf_args: Run, dataset: FeatureDataset) -> None:
    saved = StepFeed(crf_args.settings.optimisation, dataset).state_dict()
    with pytest.raises(ValueError, match="another order"):
        StepFeed(replace(crf_args, seed=1).settings.optimisation, dataset).load_state_dict(saved)
