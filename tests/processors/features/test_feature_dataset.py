"""Flat arrays of features: on disk and back, and padded batches."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.entities import Annotation, Entity
from processors.features.dataset import FeatureArrays, FeatureCollector, FeatureDataset, InputFeatures
from processors.features.windows import SequenceLayout

RIGHT = SequenceLayout((101,), (102,), (0,), (0,), segment=1, pad_token=9, pad_token_segment_id=5)
LEFT = SequenceLayout((), (102, 101), (), (0, 2), pad_on_left=True, pad_token=9, pad_token_segment_id=4)


def arrays_of(documents: list[list[int]], layout: SequenceLayout) -> FeatureArrays:
    """Documents given by the words of each of their windows; a word is one piece, and an entity."""
    collector = FeatureCollector()
    for number, windows in enumerate(documents):
        for words in windows:
            collector.add_window(
                input_ids=np.array([*layout.before, *range(200, 200 + words), *layout.after], np.int32),
                casings=np.empty(0, np.uint8),
                word_positions=np.arange(words) + len(layout.before),
                end=words + len(layout.before),
            )
        words = sum(windows)
        collector.add_document(
            f"文-{number}",
            "语" * words,
            [(i, i + 1) for i in range(words)],
            Annotation(words, [Entity("X", word, word) for word in range(words)]),
            {"X": 0},
            len(windows),
        )
    return collector.concatenated()


def dataset_of(documents: list[list[int]], layout: SequenceLayout = RIGHT) -> FeatureDataset:
    return FeatureDataset(arrays_of(documents, layout), layout, ["X"], entities_before)


def entities_before(annotations: Sequence[Annotation]) -> torch.Tensor:
    """Labels that count the entities before each word, and -100 for padding."""
    labels = np.full((len(annotations), max(1, max(one.words for one in annotations))), -100, np.int64)
    for row, annotation in zip(labels, annotations, strict=True):
        for number, entity in enumerate(annotation.entities or ()):
            row[entity.first_word : entity.last_word + 1] = number
    return torch.from_numpy(labels)


def windows_of(dataset: FeatureDataset) -> list[InputFeatures]:
    return [dataset[index] for index in range(len(dataset))]


shapes = st.lists(st.lists(st.integers(1, 6), max_size=4), max_size=6)


@given(shapes)
def test_windows_know_their_document_and_place(documents: list[list[int]]) -> None:
    dataset = dataset_of(documents)
    expected = [
        (number, sum(windows[:index]), words)
        for number, windows in enumerate(documents)
        for index, words in enumerate(windows)
    ]
    assert [
        (window.document, window.first_word, len(window.word_positions)) for window in windows_of(dataset)
    ] == expected
    assert (len(dataset), dataset.num_documents, dataset.num_words) == (
        len(expected),
        len(documents),
        sum(map(sum, documents)),
    )
    assert dataset.word_counts.tolist() == [words for _, _, words in expected]
    assert dataset.lengths.tolist() == [words + 2 for _, _, words in expected]


@given(shapes)
def test_documents_come_back_with_their_windows(documents: list[list[int]]) -> None:
    dataset = dataset_of(documents)
    first = 0
    for number, windows in enumerate(documents):
        document = dataset.document(number)
        assert (document.guid, document.text) == (f"文-{number}", "语" * sum(windows))
        assert document.words == ["语"] * sum(windows)
        assert document.annotation == dataset.annotation(number)
        assert document.annotation.entities == [("X", word, word) for word in range(sum(windows))]
        assert dataset.windows_of(number, number + 1) == range(first, first + len(windows))
        first += len(windows)
    assert dataset.windows_of(0, len(documents)) == range(len(dataset))


@given(parts=st.lists(shapes, min_size=1, max_size=3))
def test_arrays_appended_on_disk_are_those_in_memory(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    in_memory = [arrays_of(part, RIGHT) for part in parts]
    for arrays in in_memory:
        arrays.append_to(folder)
    for name, mapped in FeatureArrays.mapped(folder).items():
        expected = np.concatenate([arrays[name] for arrays in in_memory])
        assert mapped.dtype == expected.dtype
        assert mapped.tolist() == expected.tolist()


def test_arrays_on_disk_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    arrays_of([[3]], RIGHT).append_to(tmp_path)
    ids = FeatureArrays.mapped(tmp_path)["input_ids"]
    while isinstance(ids.base, np.ndarray):
        ids = ids.base
    assert isinstance(ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_odd_texts_and_names_come_back() -> None:
    collector = FeatureCollector()
    collector.add_document("\udc80", "a\ud800😀", [(0, 1), (1, 2), (2, 3), (3, 3)], Annotation(4, None), {}, 0)
    document = FeatureDataset(collector.concatenated(), RIGHT).document(0)
    assert (document.guid, document.words) == ("\udc80", ["a", "\ud800", "😀", ""])


@pytest.mark.parametrize("index", [-1, 2, 100])
def test_an_index_beyond_the_windows_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        dataset_of([[1, 1]])[index]


def test_a_batch_is_padded_on_the_right() -> None:
    dataset = dataset_of([[1], [3]])
    batch = {name: tensor.tolist() for name, tensor in dataset.collate([dataset[0], dataset[1]]).items()}
    assert batch == {
        "input_ids": [[101, 200, 102, 9, 9], [101, 200, 201, 202, 102]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        "token_type_ids": [[0, 1, 0, 5, 5], [0, 1, 1, 1, 0]],
        "word_positions": [[1, 0, 0], [1, 2, 3]],
        "word_lengths": [[1, 0, 0], [1, 1, 1]],
        "word_mask": [[True, False, False], [True] * 3],
        "labels": [[0, -100, -100], [0, 1, 2]],
    }


def test_a_batch_is_padded_on_the_left_with_words_still_on_the_right() -> None:
    dataset = dataset_of([[1], [3]], LEFT)
    batch = {name: tensor.tolist() for name, tensor in dataset.collate([dataset[0], dataset[1]]).items()}
    assert batch == {
        "input_ids": [[9, 9, 200, 102, 101], [200, 201, 202, 102, 101]],
        "attention_mask": [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]],
        "token_type_ids": [[4, 4, 0, 0, 2], [0, 0, 0, 0, 2]],
        "word_positions": [[2, 0, 0], [0, 1, 2]],
        "word_lengths": [[1, 0, 0], [1, 1, 1]],
        "word_mask": [[True, False, False], [True] * 3],
        "labels": [[0, -100, -100], [0, 1, 2]],
    }


@pytest.mark.parametrize("layout", [RIGHT, LEFT], ids=["right", "left"])
@given(documents=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_batch_holds_exactly_its_windows(layout: SequenceLayout, documents: list[list[int]]) -> None:
    dataset = dataset_of(documents, layout)
    windows = windows_of(dataset)
    batch = dataset.collate(windows)
    for row, window in enumerate(windows):
        real = batch["attention_mask"][row].bool()
        words = batch["word_mask"][row]
        assert batch["input_ids"][row][real].tolist() == window.input_ids.tolist()
        assert batch["token_type_ids"][row][real].tolist() == window.segment_ids.tolist()
        assert batch["labels"][row][words].tolist() == list(range(len(window.word_positions)))
        gathered = batch["input_ids"][row][batch["word_positions"][row][words]]
        assert gathered.tolist() == window.input_ids[window.word_positions].tolist()


def test_tensors_have_the_types_that_models_take() -> None:
    dataset = dataset_of([[2]])
    types = {name: tensor.dtype for name, tensor in dataset.collate([dataset[0]]).items()}
    assert types.pop("word_mask") == torch.bool
    assert set(types.values()) == {torch.int64}


def test_a_data_set_on_disk_reaches_loader_processes(tmp_path: Path) -> None:
    arrays_of([[2], [3]], RIGHT).append_to(tmp_path)
    dataset = FeatureDataset(FeatureArrays.mapped(tmp_path), RIGHT, ["X"], entities_before)
    copy: FeatureDataset = pickle.loads(pickle.dumps(dataset))
    batch, copied = (one.collate(windows_of(one)) for one in (dataset, copy))
    assert all(copied[name].equal(tensor) for name, tensor in batch.items())


@pytest.mark.parametrize("layout", [RIGHT, LEFT])
def test_a_batch_of_no_window_has_no_word_that_counts(layout: SequenceLayout) -> None:
    dataset = dataset_of([[3], [2]], layout)
    batch = dataset.collate([])
    assert batch["input_ids"].tolist() == dataset.collate([dataset[0]])["input_ids"].tolist()
    assert not batch["word_mask"].any()
    assert (batch["labels"] == -100).all()
    assert batch["labels"].shape == (1, 1)
