"""Bootstrap intervals."""

import time

import numpy as np
import pytest

from analysis.documents import central_interval, precision_recall_f1, resampled_sums, score_intervals


def corpus_counts(documents: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Right, predicted and gold entities of documents of very different sizes."""
    generator = np.random.default_rng(seed)
    gold = generator.poisson(generator.gamma(1, 3, documents))
    right = generator.binomial(gold, 0.8)
    return np.stack([right, right + generator.poisson(0.5, documents), gold], axis=1)


def test_scores_of_counts_are_zero_where_there_is_nothing_to_divide_by() -> None:
    counts = np.array([[2, 4, 3], [0, 0, 3], [0, 2, 0], [0, 0, 0]])
    assert precision_recall_f1(counts) == pytest.approx(np.array([[0.5, 2 / 3, 4 / 7], [0] * 3, [0] * 3, [0] * 3]))


def test_resamples_by_kind_are_distributed_as_resamples_of_documents() -> None:
    counts = corpus_counts(200)
    generator = np.random.default_rng(1)
    plain = counts[generator.integers(0, len(counts), (20_000, len(counts)))].sum(1)
    drawn = resampled_sums(counts, 20_000, seed=2)
    spread = plain.std(0)
    assert (abs(drawn.mean(0) - plain.mean(0)) < 5 * spread / np.sqrt(10_000)).all()
    assert np.cov(drawn.T) == pytest.approx(np.cov(plain.T), rel=0.05)
    plain_bounds, drawn_bounds = (central_interval(precision_recall_f1(sums)) for sums in (plain, drawn))
    assert drawn_bounds == pytest.approx(plain_bounds, abs=0.002)


def test_nineteen_of_twenty_intervals_hold_the_score_of_all_documents_there_are() -> None:
    everything = corpus_counts(100_000, seed=3)
    truth = precision_recall_f1(everything.sum(0))[2]
    samples = np.random.default_rng(4).permutation(everything)[:60_000].reshape(200, 300, 3)
    intervals = [score_intervals(sample)["f1"] for sample in samples]
    assert 0.90 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    counts = corpus_counts(50)
    assert score_intervals(counts) == score_intervals(counts)
    assert score_intervals(counts) != score_intervals(counts, seed=1)


def test_the_score_lies_within() -> None:
    counts = corpus_counts(300)
    for (low, high), score in zip(score_intervals(counts).values(), precision_recall_f1(counts.sum(0)), strict=True):
        assert low < score < high


def test_without_entities_the_interval_is_zero() -> None:
    assert score_intervals(np.zeros((5, 3), np.int64)) == {"precision": [0, 0], "recall": [0, 0], "f1": [0, 0]}


@pytest.mark.parametrize("documents", [0, 1])
def test_one_document_has_no_interval(documents: int) -> None:
    assert score_intervals(np.full((documents, 3), 9)) == {}


def test_ten_thousand_documents_take_well_under_a_second() -> None:
    counts = corpus_counts(10_000)
    start = time.process_time()
    score_intervals(counts)
    assert time.process_time() - start < 1
