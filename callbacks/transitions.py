"""A picture of what a CRF has learnt of neighbouring tags."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

_ILLEGAL = "0.85"  # a light grey


def transition_picture(crf: nn.Module, tag_names: Sequence[str]) -> NDArray[np.uint8]:
    """The scores from each tag, and the start, to each tag, and the end; grey where the scheme forbids it.

    Args:
        crf: with ``transitions (C, C)``, ``start_transitions (C,)``, ``end_transitions (C,)``, and ``legal``, which is
            None or ``(C + 2, C + 2)``.
        tag_names: of the C tags.

    Returns:
        ``(height, width, 3)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes long to import
    from matplotlib.figure import Figure

    scores = transition_scores(crf)
    size = 2 + 0.28 * len(tag_names)
    figure = Figure(figsize=(size, size), dpi=80, layout="tight")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor(_ILLEGAL)
    limit = np.nanmax(np.abs(scores))
    image = axes.imshow(scores, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_xticks(range(len(tag_names) + 1), [*tag_names, "end"], rotation=90)
    axes.set_yticks(range(len(tag_names) + 1), [*tag_names, "start"])
    axes.set(xlabel="to", ylabel="from")
    figure.colorbar(image, shrink=0.8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def transition_scores(crf: nn.Module) -> NDArray[np.float64]:
    """From each of the C tags and the start to each of them and the end, ``(C + 1, C + 1)``; NaN where illegal."""
    C = len(_array(crf.start_transitions))
    scores = np.full((C + 1, C + 1), np.nan)
    scores[:C, :C] = _array(crf.transitions)
    scores[C, :C], scores[:C, C] = _array(crf.start_transitions), _array(crf.end_transitions)
    if crf.legal is not None:
        legal = _array(crf.legal).astype(bool)
        scores[~np.delete(legal[: C + 1], C, axis=1)] = np.nan  # nothing goes to the start
    return scores


def _array(tensor: object) -> NDArray[np.float64]:
    return tensor.detach().double().cpu().numpy()  # type: ignore[attr-defined]
