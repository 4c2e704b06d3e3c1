"""Which tags may follow which, from their names."""

from collections.abc import Sequence

import torch
from torch import Tensor


def legal_transitions(tags: Sequence[str]) -> Tensor:
    """The matrix for `CRF.set_legal`, of tags in BIO (IOB2), BIOS, BIOES, BMES or BILOU.

    A tag is O, or a letter and a type as in B-PER. The scheme is recognised by its letters: where there is one for the
    end of an entity or for a single word, an entity has to use it.

    Returns:
        (C + 2, C + 2) bool; row C is the start of a sequence, column C + 1 its end.

    Raises:
        ValueError: a tag is neither O nor begins with one of B I M E L S U and a hyphen.
    """
    C = len(tags)
    parts = [(tag[:1], tag[2:]) for tag in tags]
    wrong = [tag for tag in tags if tag != "O" and (tag[:1] not in tuple("BIMELSU") or tag[1:2] != "-")]
    if wrong:
        raise ValueError(f"not tags of a known scheme: {', '.join(wrong)}; expected O, or for instance B-PER")
    letters = {letter for letter, _ in parts}
    closing = set("OELSU") | (set() if letters & set("EL") else set("IM")) | (set() if letters & set("ELSU") else {"B"})
    legal = torch.zeros(C + 2, C + 2, dtype=torch.bool)
    for i, (before, type_before) in enumerate([*parts, ("O", "")]):  # the start is as O
        for j, (letter, type_here) in enumerate([*parts, ("", ""), ("O", "")]):  # nothing leads to the start
            inside = letter in tuple("IMEL")
            legal[i, j] = before in tuple("BIM") and type_before == type_here if inside else before in closing
    legal[:, C] = False
    return legal
