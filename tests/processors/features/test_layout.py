"""Where special tokens stand, as the tokenizers themselves have it."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from processors.examples import Example
from processors.features.build import FeatureSpec, build_feature_arrays
from processors.features.dataset import FeatureDataset
from processors.features.windows import SequenceLayout, layout_of_tokenizer

WORDS = ["the", "man", "said", "that", "anna", "left", "rome"]


def test_bert_has_cls_first_and_sep_last(bert: PreTrainedTokenizerBase) -> None:
    assert layout_of_tokenizer(bert) == SequenceLayout(
        before=(bert.cls_token_id,),
        after=(bert.sep_token_id,),
        before_segments=(0,),
        after_segments=(0,),
        pad_token=bert.pad_token_id,
    )


def test_roberta_has_its_own_tokens_and_padding(roberta: PreTrainedTokenizerBase) -> None:
    layout = layout_of_tokenizer(roberta)
    assert (layout.before, layout.after) == ((roberta.bos_token_id,), (roberta.eos_token_id,))
    assert (layout.pad_token, layout.pad_on_left) == (roberta.pad_token_id, False)


@pytest.mark.corpora
def test_xlnet_has_cls_last_in_segment_2_and_pads_on_the_left_with_4(xlnet: PreTrainedTokenizerBase) -> None:
    assert layout_of_tokenizer(xlnet, "xlnet") == SequenceLayout(
        before=(),
        after=(xlnet.sep_token_id, xlnet.cls_token_id),
        before_segments=(),
        after_segments=(0, 2),
        pad_on_left=True,
        pad_token=xlnet.pad_token_id,
        pad_token_segment_id=4,
    )


def word_level(vocab: dict[str, int], **special: str) -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.WordLevel(vocab, unk_token=special.get("unk_token", "none")))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def test_a_tokenizer_without_special_tokens_has_a_bare_layout() -> None:
    layout = layout_of_tokenizer(word_level({"a": 0, "<end>": 7}, eos_token="<end>"))
    assert (layout.before, layout.after, layout.pad_token) == ((), (), 7)


def test_an_unknown_letter_will_do() -> None:
    assert layout_of_tokenizer(word_level({"[UNK]": 0}, unk_token="[UNK]")).capacity(5) == 5


def test_a_tokenizer_that_knows_no_letter_is_refused() -> None:
    with pytest.raises(ValueError, match="knows no letter 'a'"):
        layout_of_tokenizer(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"b": 0}, []))))


def test_a_window_in_the_layout_is_what_the_tokenizer_gives(tokenizer: PreTrainedTokenizerBase) -> None:
    layout = layout_of_tokenizer(tokenizer)
    spec = FeatureSpec(64, 0, layout)
    window = FeatureDataset(build_feature_arrays([Example("a", WORDS)], spec, tokenizer), layout)[0]
    own = tokenizer(WORDS, is_split_into_words=True, return_token_type_ids=True)
    assert window.input_ids.tolist() == own["input_ids"]
    assert window.segment_ids.tolist() == own["token_type_ids"]


def test_capacity_is_what_the_special_tokens_leave() -> None:
    layout = SequenceLayout(before=(1,), after=(2, 3), before_segments=(0,), after_segments=(0, 2))
    assert layout.capacity(10) == 7
    assert layout.capacity(4) == 1


@pytest.mark.parametrize("max_seq_length", [-1, 0, 3])
def test_a_length_without_room_for_a_word_is_refused(max_seq_length: int) -> None:
    layout = SequenceLayout(before=(1,), after=(2, 3), before_segments=(0,), after_segments=(0, 2))
    with pytest.raises(ValueError, match=f"max_seq_length {max_seq_length} leaves no room"):
        layout.capacity(max_seq_length)
