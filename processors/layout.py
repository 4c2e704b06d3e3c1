"""Where the special tokens stand and how batches are padded: BERT's pattern, XLNet's, or a tokenizer's own."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class SequenceLayout:
    """The frame around the word pieces of a window.

    Args:
        before, after: ids of the special tokens on the two sides.
        before_segments, after_segments: their segment ids.
        segment: segment id of the word pieces.
        casing_segments: instead, one for each casing that a word may have, see `processors.casing`; none by default.
        pad_on_left: whether padding comes first, as XLNet wants it.
        pad_token, pad_token_segment_id: what padding consists of.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    before_segments: tuple[int, ...]
    after_segments: tuple[int, ...]
    segment: int = 0
    pad_on_left: bool = False
    pad_token: int = 0
    pad_token_segment_id: int = 0
    casing_segments: tuple[int, ...] = ()

    def capacity(self, max_seq_length: int) -> int:
        """Word pieces that fit into a sequence of this length.

        Raises:
            ValueError: there is room for none.
        """
        capacity = max_seq_length - len(self.before) - len(self.after)
        if capacity < 1:
            raise ValueError(f"max_seq_length {max_seq_length} leaves no room for a word beside the special tokens")
        return capacity


def layout_of_tokenizer(
    tokenizer: PreTrainedTokenizerBase, model_type: str = "", casing_segments: Sequence[int] = ()
) -> SequenceLayout:
    """The layout that the tokenizer itself gives to a single text, whatever the model family."""
    probe = tokenizer("a", return_special_tokens_mask=True, return_token_type_ids=True)
    ids, special = probe["input_ids"], probe["special_tokens_mask"]
    segments = probe.get("token_type_ids") or [0] * len(ids)
    inner = [index for index, mark in enumerate(special) if not mark]
    if not inner:
        raise ValueError(f"{type(tokenizer).__name__} knows no letter 'a'; is its vocabulary complete?")
    first, last = inner[0], inner[-1] + 1
    pad_token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return SequenceLayout(
        before=tuple(ids[:first]),
        after=tuple(ids[last:]),
        before_segments=tuple(segments[:first]),
        after_segments=tuple(segments[last:]),
        segment=segments[first],
        pad_on_left=tokenizer.padding_side == "left",
        pad_token=pad_token or 0,
        pad_token_segment_id=4 if model_type == "xlnet" else getattr(tokenizer, "pad_token_type_id", 0),
        casing_segments=tuple(casing_segments),
    )
