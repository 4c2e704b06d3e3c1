"""The picture of a CRF's transitions."""

import numpy as np
import torch

from callbacks.trackers import transition_picture, transition_scores
from models.crf import CRF


def crf(legal: torch.Tensor | None = None) -> CRF:
    """Scores that tell where they stand: 12 from tag 1 to tag 2."""
    layer = CRF(3, legal=legal)
    places = torch.arange(3.0)
    layer.transitions.data = 10 * places[:, None] + places
    layer.start_transitions.data, layer.end_transitions.data = 30 + places, 10 * places + 3
    return layer


def test_rows_are_tags_and_the_start_columns_tags_and_the_end() -> None:
    scores = transition_scores(crf())
    expected = 10.0 * np.arange(4)[:, None] + np.arange(4)
    expected[3, 3] = np.nan  # no text is empty
    assert np.array_equal(scores, expected, equal_nan=True)


def test_what_is_illegal_has_no_score() -> None:
    legal = torch.ones(5, 5, dtype=torch.bool)
    legal[1, 2] = False
    legal[3, 0] = False  # from the start
    legal[2, 4] = False  # to the end
    scores = transition_scores(crf(legal))
    missing = {(1, 2), (3, 0), (2, 3), (3, 3)}
    assert {(int(row), int(column)) for row, column in np.argwhere(np.isnan(scores))} == missing


def test_the_picture_shows_colours_and_grows_with_the_tags() -> None:
    small = transition_picture(crf(), ["O", "B-PER", "I-PER"])
    large = transition_picture(CRF(20), [f"B-{tag}" for tag in range(20)])
    assert small.dtype == np.uint8
    assert small.shape[2] == 3
    assert len(np.unique(small.reshape(-1, 3), axis=0)) > 50
    assert large.shape[0] > 2 * small.shape[0]
