"""Tokenization of words into word pieces, with at least one token per word, and the casing of words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from processors.examples import without_lone_surrogates

_STRUCTURE = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "pad_token_id", "mask_token_id")
LONGEST_WORD = 512  # maximum number of characters of a word that the tokenizer reads


class WordPieces(NamedTuple):
    """Token ids of one text ``(T,)``, and the number of tokens of each word ``(W,)``, at least one."""

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]


def tokenize_words(
    texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_pieces_per_word: int
) -> list[WordPieces]:
    """Split the words of a batch of texts into word pieces, without special tokens.

    A word without tokens (a space, a control or zero-width character) gets the unknown token. So does a word that
    spells a separator or other structural token, which text must not inject. Of a word with more than ``LONGEST_WORD``
    characters or ``max_pieces_per_word`` pieces only the first ones are kept.

    Args:
        texts: one list of words per text.
        tokenizer: fast tokenizers process the whole batch at once, others word by word.
        max_pieces_per_word: maximum number of pieces of one word.
    """
    clean = [[without_lone_surrogates(word[:LONGEST_WORD])[0] for word in words] for words in texts]
    if not tokenizer.is_fast:
        split = [_pieces_word_by_word(words, tokenizer, max_pieces_per_word) for words in clean]
    else:
        if drops_spaces_between_words(tokenizer):
            clean = [[f" {word}" if word and word[0] != " " else word for word in words] for words in clean]
        backend = tokenizer.backend_tokenizer  # LUKE and other tokenizers interpret a list of lists differently
        backend.no_truncation()
        backend.no_padding()
        encodings = backend.encode_batch(clean, is_pretokenized=True, add_special_tokens=False)
        split = [(encoding.ids, encoding.word_ids) for encoding in encodings]
    unknown = unknown_id(tokenizer)
    reserved = dict.fromkeys(structure_ids(tokenizer), unknown)
    return [
        _pieces_of_words(
            np.array([reserved.get(piece, piece) for piece in ids], np.int32),
            np.array(word_of_piece, np.int64),
            len(words),
            unknown,
            max_pieces_per_word,
        )
        for words, (ids, word_of_piece) in zip(clean, split, strict=True)
    ]


def structure_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the separator and other structural tokens, which text must not inject by spelling them.

    The tokenizer's ``split_special_tokens`` is not enough: pieces of Unigram include </s>, those of WordPiece [SEP].
    """
    return [token_id for name in _STRUCTURE if (token_id := getattr(tokenizer, name)) is not None]


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Vocabulary entries that come from files; without files, as in CANINE, only the added tokens."""
    has_files = bool(type(tokenizer).vocab_files_names)
    entries: dict[str, int] = tokenizer.get_vocab() if has_files else tokenizer.added_tokens_encoder
    return entries


def drops_spaces_between_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a fast tokenizer treats pretokenized words as if there were no spaces between them."""
    if not tokenizer.is_fast:
        return False
    backend = tokenizer.backend_tokenizer
    in_text = backend.encode("a a").ids
    alone, spaced = (backend.encode(["a", word], is_pretokenized=True).ids for word in ("a", " a"))
    return alone != in_text == spaced


def _pieces_of_words(
    ids: NDArray[np.int32], word_of_piece: NDArray[np.int64], words: int, unknown: int, limit: int
) -> WordPieces:
    counts = np.bincount(word_of_piece, minlength=words).astype(np.int32)
    if counts.max(initial=0) > limit:
        rank_in_word = np.arange(len(ids)) - (np.cumsum(counts) - counts)[word_of_piece]
        kept = rank_in_word < limit
        ids, word_of_piece = ids[kept], word_of_piece[kept]
        counts = np.minimum(counts, limit)
    lost = np.flatnonzero(counts == 0)
    if len(lost):
        ids = np.insert(ids, np.searchsorted(word_of_piece, lost), unknown)
        counts[lost] = 1
    return WordPieces(ids, counts)


def _pieces_word_by_word(
    words: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[int], list[int]]:
    """Ids of the pieces, and the word of each."""
    ids: list[int] = []
    word_of_piece: list[int] = []
    for index, word in enumerate(words):
        pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word)[:limit])
        ids += pieces  # type: ignore[arg-type]
        word_of_piece += [index] * len(pieces)  # type: ignore[arg-type]
    return ids, word_of_piece


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token id for words without a token: the unknown, else the mask, else the end token."""
    for token_id in (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.eos_token_id):
        if isinstance(token_id, int):
            return token_id
    raise ValueError(f"{type(tokenizer).__name__} has no unknown, mask or end token for words without tokens")


CASINGS = 4
LOWER, TITLE, UPPER, MIXED = range(CASINGS)


def casing_of(word: str) -> int:
    """Casing of a word; characters that are not letters are ignored.

    ``LOWER``: no capitals (also in scripts without case, such as Chinese); ``TITLE``: only the first letter is a
    capital; ``UPPER``: several letters, all capitals; ``MIXED``: anything else.
    """
    letters = "".join(filter(str.isalpha, word))
    rest = letters[1:]
    if letters == letters.lower():
        return LOWER
    if rest == rest.lower():
        return TITLE
    return UPPER if letters == letters.upper() else MIXED
