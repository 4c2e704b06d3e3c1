"""Words to word pieces with four kinds of tokenizers, on ordinary and on hostile words."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from processors.features.alignment import WordPieces, drops_spaces_between_words, tokenize_words

ODD_WORDS = [
    "",
    " ",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\x00",
    "\x07",
    "\ud800",
    "\udc00",
    "😀",
    "👩‍👩‍👧",
    "e\u0301",
    "\xad",
    "7.7",
]
words_of_any_kind = st.lists(
    st.sampled_from([*ODD_WORDS, "anna", "York", "said,", "a" * 5000, "中" * 5000])
    | st.text(st.characters(exclude_characters="[]<>"), max_size=4),
    max_size=10,
)


def pieces_of_word(word: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer makes of one word alone; the unknown token where that is nothing."""
    word = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in word)
    if not tokenizer.is_fast:
        return tokenizer.encode(word, add_special_tokens=False) or [tokenizer.unk_token_id]
    ids: list[int] = tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    return ids or [tokenizer.unk_token_id]


def split_by_word(pieces: WordPieces) -> list[list[int]]:
    assert pieces.counts.sum() == len(pieces.ids)
    return [part.tolist() for part in np.split(pieces.ids, np.cumsum(pieces.counts)[:-1])] if len(pieces.counts) else []


@given(texts=st.lists(words_of_any_kind, max_size=3), limit=st.integers(1, 12))
def test_every_word_has_its_own_pieces_and_at_least_one(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], limit: int
) -> None:
    for words, pieces in zip(texts, tokenize_words(texts, tokenizer, limit), strict=True):
        assert split_by_word(pieces) == [pieces_of_word(word, tokenizer)[:limit] for word in words]


@pytest.mark.parametrize("word", ODD_WORDS)
def test_an_odd_word_has_a_token_between_its_neighbours(tokenizer: PreTrainedTokenizerBase, word: str) -> None:
    (pieces,) = tokenize_words([["anna", word, "bob"]], tokenizer, 50)
    first, odd, last = split_by_word(pieces)
    assert odd
    assert (first, last) == (pieces_of_word("anna", tokenizer), pieces_of_word("bob", tokenizer))


@pytest.mark.parametrize("word", ["", " ", "\u3000", "\u200b", "\x07"])
def test_a_word_that_bert_turns_into_nothing_is_unknown(bert: PreTrainedTokenizerBase, word: str) -> None:
    (pieces,) = tokenize_words([[word, "anna", word]], bert, 5)
    assert split_by_word(pieces) == [[bert.unk_token_id], pieces_of_word("anna", bert), [bert.unk_token_id]]


STRUCTURE = ("bos_token", "eos_token", "sep_token", "cls_token", "pad_token", "mask_token")


@pytest.mark.parametrize("form", ["{}", "x{}", "{}{}", "({})"])
@pytest.mark.parametrize("name", STRUCTURE)
def test_a_word_that_spells_a_token_of_the_structure_is_not_that_token(
    tokenizer: PreTrainedTokenizerBase, name: str, form: str
) -> None:
    token = getattr(tokenizer, name) or tokenizer.sep_token
    (pieces,) = tokenize_words([["anna", form.replace("{}", token), "bob"]], tokenizer, 20)
    first, odd, last = split_by_word(pieces)
    assert tokenizer.unk_token_id in odd
    assert not {getattr(tokenizer, f"{one}_id") for one in STRUCTURE} & set(odd)
    assert (first, last) == (pieces_of_word("anna", tokenizer), pieces_of_word("bob", tokenizer))


def test_a_word_that_the_user_made_a_token_stays_it(bert: PreTrainedTokenizerBase) -> None:
    extended = copy.deepcopy(bert)
    extended.add_special_tokens({"additional_special_tokens": ["[NAME]"]})
    (pieces,) = tokenize_words([["[UNK]", "[NAME]"]], extended, 5)
    assert pieces.ids.tolist() == [bert.unk_token_id, len(bert)]


def test_texts_of_nothing_but_lost_words_and_empty_texts_keep_their_places(bert: PreTrainedTokenizerBase) -> None:
    pieces = tokenize_words([[], ["\u200b"] * 3, [], ["anna"]], bert, 5)
    assert [part.counts.tolist() for part in pieces] == [[], [1, 1, 1], [], [1]]
    assert tokenize_words([], bert, 5) == []


def test_a_long_word_keeps_its_first_pieces_and_its_neighbours_all(roberta: PreTrainedTokenizerBase) -> None:
    (pieces,) = tokenize_words([["anna", "z" * 5000, "bob"]], roberta, 7)
    first, long, last = split_by_word(pieces)
    assert long == pieces_of_word("z" * 5000, roberta)[:7]
    assert (first, last) == (pieces_of_word("anna", roberta)[:7], pieces_of_word("bob", roberta)[:7])


def test_byte_level_words_begin_with_a_space(roberta: PreTrainedTokenizerBase) -> None:
    (pieces,) = tokenize_words([["the", "man", "said"]], roberta, 10)
    assert pieces.ids.tolist() == roberta("the man said", add_special_tokens=False)["input_ids"]
    assert all(token.startswith("Ġ") for token in roberta.convert_ids_to_tokens(pieces.ids[[0]].tolist()))


def test_the_slow_tokenizer_gives_the_pieces_of_the_fast_one(
    bert: PreTrainedTokenizerBase, slow_bert: PreTrainedTokenizerBase
) -> None:
    assert bert.is_fast
    assert not slow_bert.is_fast
    texts = [["Anna", "quizzed", "the", "Big,co"], ["\u200b", "new", "", "york"]]
    for fast, slow in zip(tokenize_words(texts, bert, 4), tokenize_words(texts, slow_bert, 4), strict=True):
        assert split_by_word(fast) == split_by_word(slow)


def test_settings_of_an_earlier_call_cut_nothing(bert: PreTrainedTokenizerBase) -> None:
    bert("anna bob", truncation=True, max_length=3, padding="max_length")
    (pieces,) = tokenize_words([["anna", "bob", "carol", "the"]], bert, 5)
    assert pieces.counts.tolist() == [1] * 4


@pytest.mark.corpora
@pytest.mark.parametrize("name", ["bert_uncased", "xlnet"])
def test_real_tokenizers_give_the_ids_of_their_own_call(request: pytest.FixtureRequest, name: str) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    text = "the european commission said on thursday it disagreed with german advice to antidisestablishmentarianism"
    (pieces,) = tokenize_words([text.split()], tokenizer, 50)
    assert pieces.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert pieces.counts.max() > 1


def tokenizer_without(*special: str) -> PreTrainedTokenizerBase:
    """Words only; what it does not know it leaves out; it has one of these special tokens at most."""
    backend = Tokenizer(models.WordLevel({"a": 0, "<x>": 1}, unk_token="<x>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **dict.fromkeys(special, "<x>"))


@pytest.mark.parametrize("special", ["unk_token", "mask_token", "eos_token"])
def test_another_token_stands_in_where_there_is_no_unknown_one(special: str) -> None:
    (pieces,) = tokenize_words([["a", ""]], tokenizer_without(special), 5)
    assert pieces.ids.tolist() == [0, 1]


def test_a_tokenizer_without_any_such_token_is_refused() -> None:
    with pytest.raises(ValueError, match="has no unknown, mask or end token"):
        tokenize_words([["a", ""]], tokenizer_without(), 5)


def test_a_byte_level_tokenizer_that_forgets_spaces_gets_them_with_the_words(roberta: PreTrainedTokenizerBase) -> None:
    forgetful = copy.deepcopy(roberta)
    forgetful.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert not drops_spaces_between_words(roberta)
    assert drops_spaces_between_words(forgetful)
    words = ["in", "London", "", " ", " big"]
    (found,), (expected,) = (tokenize_words([words], tokenizer, 10) for tokenizer in (forgetful, roberta))
    assert split_by_word(found) == split_by_word(expected)
