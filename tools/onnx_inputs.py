"""Random batches of the inputs that a tagger's graph takes."""

import torch
from torch import Tensor

from models.tagger import Tagger


def random_inputs(tagger: Tagger, B: int, T: int, W: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A batch, padded on the right, whose longest row has T tokens and whose fullest one W words.

    Raises:
        ValueError: there are more words than tokens.
    """
    if W > T:
        raise ValueError(f"{W} words cannot begin at {T} tokens")
    tokens = torch.randint(1, T + 1, (B,), generator=generator)  # (B,)
    words = torch.randint(1, W + 1, (B,), generator=generator)  # (B,)
    tokens[0], words[0] = T, W
    words = words.minimum(tokens)
    present = torch.arange(T) < tokens[:, None]  # (B, T)
    order = torch.rand(B, T, generator=generator).masked_fill(~present, 2)  # (B, T)
    word_mask = torch.arange(W) < words[:, None]  # (B, W)
    places = order.argsort(1)[:, :W].masked_fill(~word_mask, T).sort(1).values  # (B, W)
    ids = torch.randint(0, tagger.config.vocab_size, (B, T), generator=generator)
    inputs = {
        "input_ids": ids.masked_fill(~present, tagger.config.pad_token_id or 0),
        "attention_mask": present.long(),
        "word_positions": places.masked_fill(~word_mask, 0),
        "word_mask": word_mask,
    }
    kinds = getattr(tagger.config, "type_vocab_size", 2)
    if tagger.takes_token_types and kinds > 1:
        inputs["token_type_ids"] = torch.randint(0, kinds, (B, T), generator=generator) * present
    return inputs
