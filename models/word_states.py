"""From the encoder's layers to the states of words: mean of layers, pooling of pieces, word dropout and a BiLSTM."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from common.options import option

POOLINGS = ("first", "mean")


@dataclass(frozen=True)
class WordStateOptions:
    """What happens between encoder and head, with every head.

    ``config.word_states`` stores what differs from the defaults.
    """

    word_pooling: str = option(
        "first", "state of a word: that of its first piece, or the mean over its pieces", POOLINGS
    )
    last_layers: int = option(1, "use the mean of the encoder's last N layers", at_least=1)
    word_dropout: float = option(
        0.0, "in training, replace the whole state of a word by zeros with this probability", at_least=0, below=1
    )
    bilstm_size: int = option(
        0, "units per direction of a bidirectional LSTM over the words, between encoder and head; 0: none", at_least=0
    )

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Self:
        """Options that a config stores."""
        return cls(**getattr(config, "word_states", {}))

    def write(self, config: PreTrainedConfig) -> None:
        """Store the options in a config. The config of a model without any of them is that of a token classifier."""
        stored = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        if stored:
            config.word_states = stored
        elif hasattr(config, "word_states"):
            del config.word_states

    def check_trained(self, trained: "WordStateOptions", source: str) -> None:
        """Check that options given by flags do not contradict those of a trained model; defaults are not given.

        Raises:
            ValueError: lists the contradictions.
        """
        saved, faults = asdict(trained), []
        for one in fields(self):
            asked = getattr(self, one.name)
            if one.name != "word_dropout" and asked not in (one.default, saved[one.name]):
                faults.append(f"--{one.name} {asked}: the model in {source} was trained with {saved[one.name]}")
        if faults:
            raise ValueError(f"{'; '.join(faults)}; leave the flags out, or train from the encoder")


class BiLstm(nn.ModuleList):
    """An LSTM in each direction over the words of each row, independent of its padding.

    Args:
        width: size of the states of words.
        size: units per direction.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__([nn.LSTM(width, size, batch_first=True) for _ in range(2)])

    def forward(self, states: Tensor, word_mask: Tensor) -> Tensor:
        """``(B, W, H), (B, W) -> (B, W, 2 * size)``."""
        places, lengths = torch.arange(states.size(1), device=states.device), word_mask.sum(1, keepdim=True)  # (B, 1)
        # Words from the last to the first, padding where it is; the same order leads back.
        order = torch.where(places < lengths, lengths - 1 - places, places)[..., None]  # (B, W, 1)
        left, _ = self[0](states)  # (B, W, size)
        right, _ = self[1](states.gather(1, order.expand(-1, -1, states.size(-1))))
        right = right.gather(1, order.expand(-1, -1, right.size(-1)))
        return torch.cat([left, right], -1)


def encode(encoder: nn.Module, inputs: Mapping[str, Tensor], layers: int) -> Tensor:
    """States of tokens ``(B, T, H)``: those of the encoder's last layer, or the mean of its last layers.

    Raises:
        ValueError: the encoder has fewer layers, or its layers have different numbers of states.
    """
    if layers == 1:
        return cast(Tensor, encoder(**inputs)[0])
    output = encoder(**inputs, output_hidden_states=True)
    last, below = output[0], output.hidden_states[1:-1]  # the first are the embeddings
    chosen = [last, *below[len(below) + 1 - layers :]]
    if len(below) + 1 < layers:
        raise ValueError(f"--last_layers {layers}: the encoder has {len(below) + 1} layers")
    if any(states.shape != last.shape for states in chosen):
        raise ValueError(f"--last_layers {layers}: the layers of this family of encoders differ in length")
    return torch.stack(chosen).mean(0)


def states_of_words(states: Tensor, positions: Tensor, lengths: Tensor | None, pooling: str) -> Tensor:
    """States of words from those of tokens: ``(B, T, H), (B, W) -> (B, W, H)``.

    Args:
        positions: index of each word's first piece.
        lengths: number of pieces of each word ``(B, W)``, needed for their mean.

    Raises:
        ValueError: the lengths are missing.
    """
    if pooling == "first":
        return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.size(-1)))
    if lengths is None:
        raise ValueError("the mean over the pieces of words (--word_pooling mean) needs word_lengths")
    places, first = torch.arange(states.size(1), device=states.device), positions[..., None]  # (T,), (B, W, 1)
    inside = (places >= first) & (places < first + lengths[..., None])  # (B, W, T)
    return (inside.to(states.dtype) @ states) / lengths.clamp(min=1)[..., None]


def without_some_words(states: Tensor, probability: float) -> Tensor:
    """States ``(B, W, H)`` with those of random words replaced by zeros; the others keep their scale, as in Flair."""
    kept = torch.rand(states.shape[:2], device=states.device) >= probability  # (B, W)
    return states * kept[..., None]


def takes_word_lengths(model: Any) -> bool:
    """Whether a tagger needs the number of pieces of each word."""
    return bool(model.word_options.word_pooling == "mean")
