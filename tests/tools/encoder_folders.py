"""Folders as they are published: a tiny random encoder of a family, with the tokenizer files of its kind."""

import io
from functools import cache
from pathlib import Path

import sentencepiece
from tokenizers import ByteLevelBPETokenizer, Regex, Tokenizer, pre_tokenizers
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from tests.helpers import FILLERS, NAMES
from tests.models.families import tiny_config

_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORD_PIECES = {
    **dict.fromkeys(("bert", "convbert", "distilbert", "electra", "ernie", "mobilebert", "nomic_bert"), _BERT),
    "mpnet": ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"],
}
_SENTENCE_PIECES = {
    "albert": "spiece.model",
    "big_bird": "spiece.model",
    "deberta-v2": "spm.model",
    "fnet": "spiece.model",
    "gte": "sentencepiece.bpe.model",
    "jina_embeddings_v3": "sentencepiece.bpe.model",
    "rembert": "sentencepiece.model",
    "xlm-roberta": "sentencepiece.bpe.model",
    "xlnet": "spiece.model",
    "yoso": "spiece.model",
}
_BYTE_PAIRS = ("longformer", "luke", "roberta")
_PROTEINS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]


def write_encoder_folder(family: str, folder: Path, weights: bool = True) -> Path:
    """Writes config, tokenizer files and, where wanted, weights."""
    folder.mkdir(parents=True)
    positions = {} if family == "xlnet" else {"max_position_embeddings": 70}
    config = tiny_config(family, **positions)
    config.id2label, config.label2id = {}, {}
    config.save_pretrained(folder)
    write_tokenizer_files(family, folder)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    config.vocab_size = len(tokenizer)
    if family == "canine":  # embeds hashes of characters
        del config.vocab_size
    config.pad_token_id = tokenizer.pad_token_id
    config.save_pretrained(folder)
    if weights:
        set_seed(7)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def write_tokenizer_files(family: str, folder: Path) -> None:
    """The files that published folders of the family have; none for CANINE, and ``tokenizer.json`` for the newest."""
    if special := _WORD_PIECES.get(family):
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        pieces = [*special, *_words(), *letters, *(f"##{letter}" for letter in letters)]
        (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n", "utf-8")
    elif name := _SENTENCE_PIECES.get(family):
        (folder / name).write_bytes(_sentence_piece_model())
    elif family in _BYTE_PAIRS:
        _byte_pairs().save_model(str(folder))
    elif family == "esm":
        (folder / "vocab.txt").write_text("\n".join(_PROTEINS) + "\n", "utf-8")
    elif family != "canine":
        backend = Tokenizer.from_str(_byte_pairs().to_str())
        split = pre_tokenizers.Split(Regex(r" ?\w+|[^\w\s]|\s+"), "isolated")  # as Llama's and its heirs'
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
        PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **names).save_pretrained(folder)


@cache
def _words() -> list[str]:
    return sorted({word for names in NAMES.values() for name in names for word in name.split()} | set(FILLERS))


@cache
def _byte_pairs() -> ByteLevelBPETokenizer:
    trained = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([" ".join(_words())] * 2, 320, special_tokens=specials, show_progress=False)
    return trained


@cache
def _sentence_piece_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(_words())] * 8),
        model_writer=model,
        vocab_size=70,
        hard_vocab_limit=False,
        pad_id=3,
        control_symbols="[CLS],[SEP],[MASK],<cls>,<sep>",
        minloglevel=2,
    )
    return model.getvalue()
