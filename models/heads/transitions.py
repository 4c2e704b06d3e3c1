"""Transitions that are not learnt: which tags may follow each other, and biases for kinds of transitions."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from common.tag_schemes import (
    MARKUPS,
    OUTSIDE,
    begins_entity,
    canonical_tag,
    legal_transitions,
    split_tag,
)
from common.transition_biases import KINDS
from models.crf import CRF


def legal_followers(tags: Sequence[str], markup: str) -> list[list[int]]:
    """For ``config.crf_legal``: the ids that may follow each tag and the start of a text; see `BertCrfForNer`."""
    return [np.flatnonzero(row).tolist() for row in legal_transitions(tags, MARKUPS[markup])[:-1]]


def legal_matrix(followers: list[list[int]] | None, num_tags: int) -> Tensor | None:
    """Convert ``config.crf_legal`` to the boolean matrix ``(C + 2, C + 2)`` of the CRF."""
    if followers is None:
        return None
    legal = torch.zeros(num_tags + 2, num_tags + 2, dtype=torch.bool, device="cpu")  # even if the default is meta
    for tag, following in enumerate(followers):
        legal[tag, following] = True
    return legal


@lru_cache(maxsize=8)
def fixed_crf(tags: tuple[str, ...], markup: str, biases: tuple[float, ...], device: torch.device) -> CRF:
    """A CRF that nothing trains, not to be changed: it allows what the scheme allows, and transitions score their bias.

    Args:
        biases: of each of ``KINDS``; the beginning and the end of a text have none.

    Raises:
        ValueError: with these tags, some texts would have no legal tag sequence.
    """
    C, legal = len(tags), torch.from_numpy(legal_transitions(tags, MARKUPS[markup]))
    if not (legal[C, :C] & legal[:C, C + 1] & legal[:C, :C].diagonal()).any():
        raise ValueError(f"no tag of {', '.join(tags)} can be that of every word: {markup} has no legal tag sequence")
    with torch.inference_mode(False), torch.no_grad():
        with torch.device("meta"):  # draws no random numbers
            crf = CRF(C, batch_first=True)
        crf.to_empty(device=device).requires_grad_(False)
        for scores in (crf.start_transitions, crf.end_transitions):
            scores.zero_()
        crf.transitions.copy_(torch.tensor(biases)[kinds_of_transitions(tags)])
        crf.set_legal(legal)
    return crf


@lru_cache(maxsize=8)
def kinds_of_transitions(tags: tuple[str, ...]) -> Tensor:
    """Index in ``KINDS`` of each transition from tag to tag ``(C, C)``, which is not to be changed."""
    return torch.tensor([[KINDS.index(_kind(before, after)) for after in tags] for before in tags])


def _kind(before: str, after: str) -> str:
    if before == OUTSIDE:
        return "background_stay" if after == OUTSIDE else "background_to_start"
    if after == OUTSIDE:
        return "end_to_background"
    if begins_entity(before, after):
        return "end_to_start"
    return "inside_to_end" if split_tag(canonical_tag(after))[0] == "E" else "inside_to_continue"


def transition_table(crf: CRF) -> list[dict[int, float]]:
    """For each tag, and for the start of a text, the tags that may follow and their scores; ``C + 1`` is the end."""
    C, legal = crf.num_tags, crf.legal
    assert legal is not None
    scores = torch.zeros(C + 1, C + 2)
    scores[:C, :C], scores[C, :C], scores[:C, C + 1] = crf.transitions, crf.start_transitions, crf.end_transitions
    return [
        {after: float(scores[before, after]) for after in legal[before].nonzero()[:, 0].tolist()}
        for before in range(C + 1)
    ]
