"""Conversion of examples to features: windows of token ids with the positions and entities of their words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from common.tag_schemes import MARKUPS, TagEncoder
from processors.examples import Example
from processors.features.alignment import LOWER, tokenize_words
from processors.features.contexts import Passage, groups_with_context, separator_of
from processors.features.dataset import FeatureArrays, FeatureCollector, FeatureDataset
from processors.features.windows import SequenceLayout, plan_windows


@dataclass(frozen=True)
class FeatureSpec:
    """Settings of the conversion of examples to features, which are part of the cache key.

    Args:
        max_seq_length: tokens per window, including special tokens.
        window_overlap: word pieces shared by adjacent windows of a long text.
        layout: special tokens and padding.
        context_size: tokens of the neighbouring sentences of the same document that a window shows on each side of a
            sentence, at most; 0: as many as fit; ``None``: none.
    """

    max_seq_length: int
    window_overlap: int
    layout: SequenceLayout
    context_size: int | None = None


def convert_examples_to_features(
    examples: Sequence[Example],
    label_list: Sequence[str],
    max_seq_length: int,
    tokenizer: PreTrainedTokenizerBase,
    cls_token_at_end: bool = False,
    cls_token: str | None = "[CLS]",
    cls_token_segment_id: int = 0,
    sep_token: str | None = "[SEP]",
    pad_on_left: bool = False,
    pad_token: int = 0,
    pad_token_segment_id: int = 0,
    sequence_a_segment_id: int = 0,
    casing_segment_ids: Sequence[int] = (),
    markup: str = "bio",
    window_overlap: int | None = None,
) -> FeatureDataset:
    """Convert examples to a data set of `InputFeatures`.

    Args:
        examples: texts cut into words, with their entities.
        label_list: tags of the scheme ``markup``; the label id of a tag is its index.
        max_seq_length: tokens per window, including special tokens; longer texts become several windows.
        tokenizer: tokenizer of the encoder.
        cls_token_at_end: ``False`` for ``[CLS] A [SEP]`` (BERT, XLM); ``True`` for ``A [SEP] [CLS]`` (XLNet, GPT).
        cls_token_segment_id: 0 for BERT, 2 for XLNet.
        cls_token, sep_token: special tokens; ``None`` omits the token.
        pad_on_left: whether batches are padded on the left (XLNet).
        pad_token, pad_token_segment_id: padding; 0 and 0 for BERT, 5 and 4 for XLNet.
        sequence_a_segment_id: segment id of the text.
        casing_segment_ids: instead, one segment id per casing of a word; see `processors.features.alignment`.
        markup: internal tag scheme, one of `common.tag_schemes.MARKUPS`.
        window_overlap: word pieces shared by adjacent windows; by default a quarter of a window.

    Raises:
        ValueError: a label is not in ``label_list``, a text is annotated completely for some types only, or
            ``max_seq_length`` is too small.
    """

    def special(token: str | None) -> tuple[int, ...]:
        if token is None:
            return ()
        (token_id,) = tokenizer.convert_tokens_to_ids([token])  # type: ignore[misc]
        if token_id is None or (token_id == tokenizer.unk_token_id and token != tokenizer.unk_token):
            raise ValueError(f"the tokenizer has no token {token!r}; name its own, such as {tokenizer.cls_token!r}")
        return (token_id,)

    cls, sep = special(cls_token), special(sep_token)
    cls_segment, sep_segment = (cls_token_segment_id,) * len(cls), (sequence_a_segment_id,) * len(sep)
    layout = SequenceLayout(
        before=() if cls_token_at_end else cls,
        after=sep + cls if cls_token_at_end else sep,
        before_segments=() if cls_token_at_end else cls_segment,
        after_segments=sep_segment + cls_segment if cls_token_at_end else sep_segment,
        segment=sequence_a_segment_id,
        pad_on_left=pad_on_left,
        pad_token=pad_token,
        pad_token_segment_id=pad_token_segment_id,
        casing_segments=tuple(casing_segment_ids),
    )
    if window_overlap is None:
        window_overlap = default_overlap(layout.capacity(max_seq_length))
    spec = FeatureSpec(max_seq_length, window_overlap, layout)
    encode = TagEncoder(label_list, MARKUPS[markup])
    for example in examples:
        if example.complete is not None:
            advice = "the labels that load_and_cache_examples makes for a model can"
            raise ValueError(
                f"{example.guid}: one label per word cannot say that some types are not complete; {advice}"
            )
        try:
            encode([example.annotation])
        except ValueError as error:
            raise ValueError(f"{example.guid}: {error}") from None
    types = sorted({entity.type for example in examples for entity in example.entities or ()})
    return FeatureDataset(build_feature_arrays(examples, spec, tokenizer, types), layout, types, encode)


def default_overlap(capacity: int) -> int:
    """Default overlap: a quarter of a window, which costs a third more tokens for long texts."""
    return capacity // 4


def build_feature_arrays(
    examples: Sequence[Example], spec: FeatureSpec, tokenizer: PreTrainedTokenizerBase, types: Sequence[str] = ()
) -> FeatureArrays:
    """Convert examples to flat feature arrays; a pure function, which the cache runs in several processes.

    Args:
        types: all entity types of the examples, in the order of their ids.
    """
    capacity = spec.layout.capacity(spec.max_seq_length)
    type_ids = {name: index for index, name in enumerate(types)}
    arrays = FeatureCollector()
    before, after = (np.array(ids, np.int32) for ids in (spec.layout.before, spec.layout.after))
    pieces = tokenize_words([example.words for example in examples], tokenizer, capacity)
    with_context, with_casings = spec.context_size is not None, bool(spec.layout.casing_segments)
    separator = separator_of(tokenizer) if with_context else None
    limit = spec.context_size or capacity
    for group in groups_with_context(examples, with_context):
        sentences, of_sentences = examples[group.start : group.stop], pieces[group.start : group.stop]
        passage = Passage.of(sentences, of_sentences, separator, with_casings)
        for example, word_pieces, start in zip(sentences, of_sentences, passage.starts, strict=True):
            windows = plan_windows(word_pieces.counts, capacity, spec.window_overlap)
            first_piece = np.concatenate(([0], np.cumsum(word_pieces.counts))) + start
            for window in windows:
                first, end = int(first_piece[window.start]), int(first_piece[window.end])
                left, right = limit * (window.start == 0), limit * (window.end == len(word_pieces.counts))
                low, high = passage.around(first, end, capacity - (end - first), left, right)
                casings = passage.casings[low:high]
                if with_casings:
                    casings = np.pad(casings, (len(before), len(after)), constant_values=LOWER)
                owned = first_piece[window.own_start : window.own_end + 1] - low + len(before)
                ids = np.concatenate((before, passage.ids[low:high], after))
                arrays.add_window(ids, casings, owned[:-1], int(owned[-1]), (first - low, high - end))
            arrays.add_document(
                example.guid,
                example.text or "",
                example.offsets or [],
                example.annotation,
                type_ids,
                len(windows),
                example.document,
            )
    return arrays.concatenated()
