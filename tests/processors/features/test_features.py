"""Examples to windows: no word lost, no label shifted, and the ids of real tokenizers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from common.entities import Annotation, Entity, in_text_order
from common.tag_schemes import IGNORED_LABEL, MARKUPS, TagEncoder, tag_set, tags_to_entities
from processors import Example, convert_examples_to_features
from processors.features.build import FeatureSpec, build_feature_arrays, default_overlap
from processors.features.dataset import FeatureArrays, FeatureDataset, InputFeatures
from processors.features.windows import layout_of_tokenizer
from tests.tags import convert_tags, illegal_positions, tagged

TYPES = ["PER", "a-b"]
BIO, BIOES = (tag_set(TYPES, MARKUPS[markup]) for markup in ("bio", "bioes"))
HOSTILE = [
    "",
    " ",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\x00",
    "\x07",
    "\ud800",
    "\udfff",
    "😀",
    "👩‍👩‍👧",
    "a" * 5000,
    "中" * 5000,
]

labelled_words = st.lists(
    st.tuples(
        st.sampled_from([*HOSTILE, "anna", "york,", "said"]) | st.text(st.characters(), max_size=3),
        st.sampled_from(["O", "S-PER", "S-a-b"]),
    ),
    max_size=25,
)


def features_of(
    texts: Sequence[tuple[Sequence[str], Sequence[str] | None]],
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int = 16,
    markup: str = "bio",
    overlap: int | None = None,
) -> FeatureDataset:
    """Features of words and tags, in the tokenizer's own layout."""
    layout = layout_of_tokenizer(tokenizer)
    overlap = default_overlap(layout.capacity(max_seq_length)) if overlap is None else overlap
    examples = [tagged(f"x-{i}", words, tags) for i, (words, tags) in enumerate(texts)]
    spec, scheme = FeatureSpec(max_seq_length, overlap, layout), MARKUPS[markup]
    arrays = build_feature_arrays(examples, spec, tokenizer, TYPES)
    return FeatureDataset(arrays, layout, TYPES, TagEncoder(tag_set(TYPES, scheme), scheme))


def label_ids(dataset: FeatureDataset, annotation: Annotation) -> list[int]:
    assert dataset.encode is not None
    return dataset.encode([annotation])[0, : annotation.words].tolist()


def windows_of(dataset: FeatureDataset) -> list[InputFeatures]:
    return [dataset[index] for index in range(len(dataset))]


def first_piece(word: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """The first id of a word on its own; the unknown token where the tokenizer makes nothing of it."""
    word = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in word)
    if tokenizer.is_fast:
        ids: list[int] = tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer.encode(word, add_special_tokens=False)
    return [*ids, tokenizer.unk_token_id][0]


def read_back(dataset: FeatureDataset, document: int) -> list[tuple[int, int]]:
    """The first piece and the label of each word of a document, gathered from its windows."""
    found: list[tuple[int, int]] = []
    for index in dataset.windows_of(document, document + 1):
        window = dataset[index]
        assert (window.document, window.first_word) == (document, len(found))
        pieces = window.input_ids[window.word_positions]
        found += zip(pieces.tolist(), label_ids(dataset, window.annotation), strict=True)
    return found


@given(texts=st.lists(labelled_words, max_size=4), max_seq_length=st.integers(4, 24))
def test_no_word_is_lost_and_no_label_shifts(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[tuple[str, str]]], max_seq_length: int
) -> None:
    split = [([word for word, _ in text], [tag for _, tag in text]) for text in texts]
    dataset = features_of(split, tokenizer, max_seq_length, "bioes")
    assert dataset.num_documents == len(texts)
    assert dataset.num_words == sum(map(len, texts)) == dataset.word_counts.sum()
    for document, (words, tags) in enumerate(split):
        expected = [(first_piece(word, tokenizer), BIOES.index(tag)) for word, tag in zip(words, tags, strict=True)]
        assert read_back(dataset, document) == expected
        assert dataset.document(document).words == words


@given(text=labelled_words, max_seq_length=st.integers(4, 24))
def test_windows_fit_and_are_framed(
    tokenizer: PreTrainedTokenizerBase, text: list[tuple[str, str]], max_seq_length: int
) -> None:
    dataset = features_of([([word for word, _ in text], None)], tokenizer, max_seq_length)
    before, after = dataset.layout.before, dataset.layout.after
    assert dataset.lengths.tolist() == [len(window.input_ids) for window in windows_of(dataset)]
    for window in windows_of(dataset):
        ids = tuple(window.input_ids.tolist())
        assert len(ids) <= max_seq_length
        assert ids[: len(before)] == before
        assert ids[len(ids) - len(after) :] == after
        assert len(before) <= window.word_positions.min()
        assert window.word_positions.max() < len(ids) - len(after)
        assert (np.diff(window.word_positions) > 0).all()


@pytest.mark.parametrize("markup", MARKUPS)
@given(tags=st.lists(st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in TYPES)]), max_size=40))
def test_labels_of_any_scheme_become_the_internal_one(
    bert: PreTrainedTokenizerBase, markup: str, tags: list[str]
) -> None:
    dataset = features_of([(["anna"] * len(tags), tags)], bert, 12, markup)
    label_list = tag_set(TYPES, MARKUPS[markup])
    gold = [label_list[label] for label in label_ids(dataset, dataset.annotation(0))]
    assert gold == convert_tags(tags, MARKUPS[markup])
    if not tags:
        return
    assert dataset.document(0).annotation == dataset.annotation(0)
    for window in windows_of(dataset):
        own = [label_list[label] for label in label_ids(dataset, window.annotation)]
        whole = gold[window.first_word : window.first_word + len(own)]
        assert illegal_positions(own, MARKUPS[markup]) == []
        assert [tag[2:] for tag in own] == [tag[2:] for tag in whole]
        assert tags_to_entities(own) == tags_to_entities(whole)


def test_an_entity_cut_by_a_window_begins_anew(bert: PreTrainedTokenizerBase) -> None:
    dataset = features_of([(["anna"] * 8, ["B-PER"] + ["I-PER"] * 7)], bert, max_seq_length=6, overlap=0)
    assert [window.annotation for window in windows_of(dataset)] == [Annotation(4, [Entity("PER", 0, 3)], [])] * 2
    assert dataset.annotation(0) == Annotation(8, [Entity("PER", 0, 7)], [])


def test_nested_entities_and_what_is_not_annotated_lie_in_their_windows(
    bert: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    entities = [Entity("a-b", 5, 6), Entity("PER", 0, 5), Entity("PER", 1, 2), Entity("PER", 2, 4)]
    example = Example("x", ["anna"] * 8, entities, unannotated=[(3, 3), (6, 7)])
    in_memory = convert_examples_to_features([example], BIO, 6, bert, window_overlap=0)
    in_memory.arrays.append_to(tmp_path)
    dataset = FeatureDataset(FeatureArrays.mapped(tmp_path), in_memory.layout, in_memory.types, in_memory.encode)
    first, second = windows_of(dataset)
    found = [("PER", 0, 3), ("PER", 1, 2), ("PER", 2, 3)]
    assert first.annotation == Annotation(4, [Entity(*one) for one in found], [(3, 3)])
    assert second.annotation == Annotation(4, [Entity("PER", 0, 1), Entity("PER", 0, 0), Entity("a-b", 1, 2)], [(2, 3)])
    labels = dataset.collate([first, second])["labels"].tolist()
    begin, inside = BIO.index("B-PER"), BIO.index("I-PER")
    assert labels == [[begin, inside, inside, IGNORED_LABEL], [begin, inside, IGNORED_LABEL, IGNORED_LABEL]]
    assert dataset.annotation(0).entities == in_text_order(entities)


def test_empty_documents_keep_their_place(bert: PreTrainedTokenizerBase) -> None:
    dataset = features_of([([], []), (["anna"] * 20, ["O"] * 20), ([], None), (["bob"], ["S-PER"]), ([], [])], bert)
    assert (dataset.num_documents, dataset.num_words) == (5, 21)
    assert [len(dataset.windows_of(document, document + 1)) for document in range(5)] == [0, 2, 0, 1, 0]
    assert [window.document for window in windows_of(dataset)] == [1, 1, 3]
    assert dataset.document(2).words == dataset.document(4).words == []


def test_no_examples_are_no_features(bert: PreTrainedTokenizerBase) -> None:
    dataset = features_of([], bert)
    assert (len(dataset), dataset.num_documents, dataset.num_words) == (0, 0, 0)


def test_unlabelled_words_are_ignored_by_the_loss(bert: PreTrainedTokenizerBase) -> None:
    dataset = features_of([(["anna", "left"], None)], bert)
    assert dataset.collate([dataset[0]])["labels"].tolist() == [[IGNORED_LABEL] * 2]
    assert dataset.annotation(0) == Annotation(2, None, [])


def test_a_document_of_20000_characters_is_whole(bert: PreTrainedTokenizerBase) -> None:
    words = list("中a京 z" * 4000)
    tags = ["S-PER", "O", "S-a-b", "O", "O"] * 4000
    dataset = features_of([(words, tags)], bert, 128, "bioes")
    expected = [(first_piece(word, bert), BIOES.index(tag)) for word, tag in zip(words[:5], tags[:5], strict=True)]
    assert read_back(dataset, 0) == expected * 4000
    assert len(dataset) < 20_000 / 90


@pytest.mark.parametrize("markup", ["bio", "bios"])
def test_a_label_that_is_not_listed_is_refused(bert: PreTrainedTokenizerBase, markup: str) -> None:
    example = tagged("dev-3", ["anna"], ["S-LOC"])
    with pytest.raises(ValueError, match=r"dev-3: label '[BS]-LOC' is not among the labels O, B-PER"):
        convert_examples_to_features([example], tag_set(TYPES, MARKUPS[markup]), 16, bert, markup=markup)


def test_a_text_that_is_complete_for_some_types_only_is_refused(bert: PreTrainedTokenizerBase) -> None:
    example = Example("dev-3", ["anna"], [], complete=frozenset({"PER"}))
    with pytest.raises(ValueError, match="dev-3: one label per word cannot say that some types are not complete"):
        convert_examples_to_features([example], BIO, 16, bert)


@pytest.mark.parametrize("max_seq_length", [0, 2])
def test_a_length_without_room_is_refused(bert: PreTrainedTokenizerBase, max_seq_length: int) -> None:
    with pytest.raises(ValueError, match=f"max_seq_length {max_seq_length} leaves no room"):
        convert_examples_to_features([], BIO, max_seq_length, bert)


def test_windows_share_a_quarter_by_default_and_what_is_asked_for_otherwise(bert: PreTrainedTokenizerBase) -> None:
    example = Example("x", ["anna"] * 100)
    default = convert_examples_to_features([example], BIO, 22, bert)
    quarter, none = (
        convert_examples_to_features([example], BIO, 22, bert, window_overlap=overlap) for overlap in (5, 0)
    )
    assert default.lengths.tolist() == quarter.lengths.tolist()
    assert (len(default), len(none)) == (7, 5)


def test_special_tokens_can_be_left_out(bert: PreTrainedTokenizerBase) -> None:
    dataset = convert_examples_to_features([Example("x", ["anna"])], BIO, 8, bert, cls_token=None, sep_token=None)
    assert dataset[0].input_ids.tolist() == [first_piece("anna", bert)]
    assert dataset[0].word_positions.tolist() == [0]


def test_segments_are_as_told(bert: PreTrainedTokenizerBase) -> None:
    dataset = convert_examples_to_features(
        [Example("x", ["anna", "left"])], BIO, 8, bert, cls_token_segment_id=3, sequence_a_segment_id=1
    )
    assert dataset[0].segment_ids.tolist() == [3, 1, 1, 1]


def test_the_pattern_of_xlnet_has_sep_and_then_cls_last(bert: PreTrainedTokenizerBase) -> None:
    dataset = convert_examples_to_features(
        [Example("x", ["anna"])], BIO, 8, bert, cls_token_at_end=True, cls_token_segment_id=2
    )
    assert dataset[0].input_ids.tolist() == [first_piece("anna", bert), bert.sep_token_id, bert.cls_token_id]
    assert dataset[0].segment_ids.tolist() == [0, 0, 2]
    assert dataset[0].word_positions.tolist() == [0]


SENTENCES = [
    ["the", "european", "commission", "said", "on", "thursday", "it", "disagreed"],
    ["antidisestablishmentarianism", "in", "germany"],
    ["peter", "blackburn"],
]


@pytest.mark.corpora
def test_a_batch_of_bert_is_the_batch_of_its_own_tokenizer(bert_uncased: PreTrainedTokenizerBase) -> None:
    dataset = convert_examples_to_features([Example("x", words) for words in SENTENCES], BIO, 64, bert_uncased)
    batch = dataset.collate(windows_of(dataset))
    own = bert_uncased([" ".join(words) for words in SENTENCES], padding=True, return_tensors="pt")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert batch[name].tolist() == own[name].tolist()


@pytest.mark.corpora
def test_a_batch_of_xlnet_is_the_batch_of_its_own_tokenizer_with_padding_in_segment_4(
    xlnet: PreTrainedTokenizerBase,
) -> None:
    dataset = convert_examples_to_features(
        [Example("x", words) for words in SENTENCES],
        BIO,
        64,
        xlnet,
        cls_token_at_end=True,
        cls_token=xlnet.cls_token,
        cls_token_segment_id=2,
        sep_token=xlnet.sep_token,
        pad_on_left=True,
        pad_token=xlnet.pad_token_id,
        pad_token_segment_id=4,
    )
    batch = dataset.collate(windows_of(dataset))
    own = xlnet([" ".join(words) for words in SENTENCES], padding=True, return_tensors="pt", return_token_type_ids=True)
    assert batch["input_ids"].tolist() == own["input_ids"].tolist()
    assert batch["attention_mask"].tolist() == own["attention_mask"].tolist()
    segments = own["token_type_ids"].masked_fill(own["attention_mask"] == 0, 4)
    assert batch["token_type_ids"].tolist() == segments.tolist()
    assert batch["input_ids"][:, -2:].tolist() == [[xlnet.sep_token_id, xlnet.cls_token_id]] * 3
    assert batch["token_type_ids"][2, 0] == 4
    firsts = batch["input_ids"].gather(1, batch["word_positions"])[batch["word_mask"]]
    assert firsts.tolist() == [first_piece(word, xlnet) for words in SENTENCES for word in words]


@pytest.mark.corpora
def test_features_in_the_tokenizers_own_layout_equal_those_told_by_hand(xlnet: PreTrainedTokenizerBase) -> None:
    own = features_of([(words, None) for words in SENTENCES], xlnet)
    told = convert_examples_to_features(
        [Example("x", words) for words in SENTENCES],
        BIO,
        16,
        xlnet,
        cls_token_at_end=True,
        cls_token=xlnet.cls_token,
        cls_token_segment_id=2,
        sep_token=xlnet.sep_token,
    )
    for left, right in zip(windows_of(own), windows_of(told), strict=True):
        assert left.input_ids.tolist() == right.input_ids.tolist()
        assert left.segment_ids.tolist() == right.segment_ids.tolist()
        assert left.word_positions.tolist() == right.word_positions.tolist()
