"""Texts and pairs as features: what is kept, cut, padded and cached."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from lightning_runs.glue_data import GlueSplit, LabelledTexts, TextDataset, open_or_build_texts, text_arrays

PAIRS = [
    LabelledTexts(("the man said", "he left"), 1.0),
    LabelledTexts(("anna", "bob met anna near new york"), 0.0),
    LabelledTexts(("the man said that he saw it when we met", "then"), None),
]


def dataset(tokenizer: PreTrainedTokenizerBase, max_seq_length: int = 64) -> TextDataset:
    return TextDataset(text_arrays(PAIRS, tokenizer, max_seq_length), tokenizer)


def test_features_are_what_the_tokenizer_makes_of_a_pair(tokenizer: PreTrainedTokenizerBase) -> None:
    made = dataset(tokenizer)
    for feature, pair in zip((made[index] for index in range(3)), PAIRS, strict=True):
        whole = tokenizer(*pair.texts, return_token_type_ids=True)
        assert feature["input_ids"] == whole["input_ids"]
        assert feature["token_type_ids"] == whole["token_type_ids"]
    assert made.labels[:2].tolist() == [1.0, 0.0]
    assert np.isnan(made.labels[2])
    assert made.truncated == 0


def test_a_batch_is_padded_as_the_tokenizer_does(tokenizer: PreTrainedTokenizerBase) -> None:
    made = dataset(tokenizer)
    batch = made.collate([made[index] for index in range(3)])
    columns = [[pair.texts[side] for pair in PAIRS] for side in (0, 1)]
    expected = tokenizer(*columns, padding=True, return_tensors="pt", return_token_type_ids=True)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert batch[name].tolist() == expected[name].tolist(), name
    assert batch["labels"][:2].tolist() == [1.0, 0.0]


def test_what_is_too_long_loses_its_end_and_is_counted(bert: PreTrainedTokenizerBase) -> None:
    made = dataset(bert, max_seq_length=8)
    assert made.lengths.tolist() == [8, 8, 8]
    assert made.truncated == 2
    assert made[0]["input_ids"] == bert("the man said", "he left")["input_ids"]
    assert bert.decode(made[1]["input_ids"]) == "[CLS] anna [SEP] bob met anna near [SEP]"


def test_features_are_built_once(bert: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    split = GlueSplit("somewhere", "digest", PAIRS)
    built = open_or_build_texts(split, bert, 64, tmp_path)
    (folder,) = tmp_path.iterdir()
    stamp = folder.stat().st_mtime_ns
    again = open_or_build_texts(GlueSplit("elsewhere", "digest", []), bert, 64, tmp_path)
    assert folder.stat().st_mtime_ns == stamp
    assert again[1]["input_ids"] == built[1]["input_ids"]
    open_or_build_texts(split, bert, 64, tmp_path, overwrite=True)
    assert folder.stat().st_mtime_ns != stamp


@pytest.mark.parametrize("change", ["digest", "length"])
def test_other_data_or_another_length_are_other_features(
    change: str, bert: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    open_or_build_texts(GlueSplit("", "digest", PAIRS), bert, 64, tmp_path)
    digest, length = ("other", 64) if change == "digest" else ("digest", 32)
    open_or_build_texts(GlueSplit("", digest, PAIRS), bert, length, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_batch_of_no_text_has_one_without_a_label(tokenizer: PreTrainedTokenizerBase) -> None:
    made = dataset(tokenizer)
    batch = made.collate([])
    assert batch["input_ids"].tolist() == [made[0]["input_ids"]]
    assert batch["labels"].isnan().tolist() == [True]


def test_a_text_that_spells_tokens_of_the_structure_sets_none(tokenizer: PreTrainedTokenizerBase) -> None:
    names = ("bos_token", "eos_token", "sep_token", "cls_token", "pad_token", "mask_token")
    spelt = " ".join(token for name in names if (token := getattr(tokenizer, name)))
    single = LabelledTexts((f"anna {spelt} bob",), 0.0)
    pair = LabelledTexts((f"anna {spelt}", f"{spelt} bob"), 0.0)
    structure = {getattr(tokenizer, f"{name}_id") for name in names}
    for example in (single, pair):
        ids = text_arrays([example], tokenizer, 64)["input_ids"].tolist()
        plain = tokenizer(*["anna"] * len(example.texts))["input_ids"]
        assert [one for one in ids if one in structure] == [one for one in plain if one in structure]
        assert tokenizer.unk_token_id in ids


def test_a_length_without_room_for_a_text_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    added = tokenizer.num_special_tokens_to_add(pair=True)
    with pytest.raises(
        ValueError, match=rf"max_seq_length {added} leaves no room for text: there are {added} special tokens"
    ):
        dataset(tokenizer, max_seq_length=added)
    assert dataset(tokenizer, max_seq_length=added + 1).truncated == 3
