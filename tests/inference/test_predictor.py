"""Raw text to entities through a trained folder."""

import gc
import json
import logging
import random
import shutil
import tracemalloc
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedTokenizerBase

import inference.predictor
from inference.predictor import FoundEntity, NerPredictor
from models import BertCrfForNer
from models.crf import backend as crf_backend
from models.crf.backend import use_backend
from models.crf.cpu import library
from processors.examples import LONE_SURROGATE
from processors.text.word_cutting import WORD_UNITS, TextPiece, WordCutter, cut_into_pieces
from tests.helpers import FILLERS, NAMES
from tests.tools.runs import FinishedRun, read_json, read_predictions


@pytest.fixture(scope="module", params=["crf_run", "softmax_run"])
def run(request: pytest.FixtureRequest) -> FinishedRun:
    found: FinishedRun = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def predictor(run: FinishedRun) -> NerPredictor:
    return NerPredictor.load(run.folder, "cpu")


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of one to thirty words, some of them names."""
    generator = random.Random(seed)
    names = [name for names in NAMES.values() for name in names]
    return [
        " ".join(generator.choices(FILLERS + names, k=generator.randrange(1, 30))) + generator.choice(["", ".", " !"])
        for _ in range(count)
    ]


def assert_same(left: list[list[FoundEntity]], right: list[list[FoundEntity]]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert [entity[:4] for entity in one] == [entity[:4] for entity in other]
        assert [entity.confidence for entity in one] == pytest.approx([entity.confidence for entity in other], abs=1e-4)


def test_entities_are_those_of_the_run(run: FinishedRun, predictor: NerPredictor) -> None:
    records = read_predictions(run.folder)
    expected = [
        [
            FoundEntity(one["type"], one["start"], one["end"], one["text"], one["confidence"])
            for one in record["entities"]
        ]
        for record in records
    ]
    assert sum(map(len, expected)) > 10
    assert_same(predictor([record["text"] for record in records]), expected)


def test_confidences_are_probabilities_that_differ(predictor: NerPredictor) -> None:
    confidences = [entity.confidence for found in predictor(sentences(100)) for entity in found]
    assert all(0 < confidence <= 1 for confidence in confidences)
    assert max(confidences) - min(confidences) > 0.05


@pytest.mark.parametrize(
    "tags", ["B-PER M-PER E-PER S-PER", "B-LOC I-LOC I-PER", "I-PER I-LOC", "B-PER I-PER L-PER U-PER"]
)
def test_token_classifiers_of_other_schemes_give_entities(
    encoder: Path, bert: PreTrainedTokenizerBase, tmp_path: Path, tags: str
) -> None:
    names = dict(enumerate(["O", *tags.split()]))
    config = AutoConfig.from_pretrained(encoder, id2label=names, label2id={tag: index for index, tag in names.items()})
    torch.manual_seed(0)
    AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    confidences = [one.confidence for found in NerPredictor.load(tmp_path, "cpu")(sentences(100)) for one in found]
    assert len(confidences) > 50
    assert all(0 < confidence <= 1 for confidence in confidences)


@pytest.mark.parametrize(("batch_tokens", "look_ahead"), [(64, 262_144), (4096, 1), (500, 2000)])
def test_entities_do_not_depend_on_what_is_held_or_batched(
    run: FinishedRun, predictor: NerPredictor, batch_tokens: int, look_ahead: int
) -> None:
    texts = sentences(60)
    other = NerPredictor.load(run.folder, "cpu", batch_tokens=batch_tokens)
    assert_same(list(other.stream(texts, look_ahead)), predictor(texts))


def test_a_text_of_several_pieces_is_tagged_as_one(predictor: NerPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(sentences(80))
    (expected,) = predictor([text])
    monkeypatch.setattr(inference.predictor, "cut_into_pieces", partial(cut_into_pieces, size=1500, context=400))
    found, after = predictor([text, "anna"])
    assert len(list(cut_into_pieces(text, WordCutter("word"), 1500, 400))) > 3
    common = {entity[:4] for entity in found} & {entity[:4] for entity in expected}
    assert len(common) >= 0.99 * len(expected) > 50  # windows begin elsewhere
    assert all(left.end <= right.start for left, right in pairwise(found))
    assert_same([after], predictor(["anna"]))


def test_a_text_over_several_look_aheads_is_one_text(predictor: NerPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["anna", " ".join(sentences(80)), "bob met carol"]
    monkeypatch.setattr(inference.predictor, "cut_into_pieces", partial(cut_into_pieces, size=500, context=100))
    assert_same(list(predictor.stream(texts, look_ahead=1)), predictor(texts))


def test_texts_are_read_only_as_far_as_needed(predictor: NerPredictor) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "anna met bob"

    stream = predictor.stream(endless(), look_ahead=1000)
    for _ in range(50):
        next(stream)
    assert 50 <= read < 50 + 30


def held_memory(predictor: NerPredictor, monkeypatch: pytest.MonkeyPatch, texts: Iterator[str], **cut: int) -> int:
    """The most that is held while pieces are read, without garbage and the interpreter's free lists."""
    most = 0

    def measured_pieces(text: str, cutter: WordCutter) -> Iterator[TextPiece]:
        nonlocal most
        for piece in cut_into_pieces(text, cutter, **cut):
            gc.collect()
            most = max(most, tracemalloc.get_traced_memory()[0])
            yield piece

    monkeypatch.setattr(inference.predictor, "cut_into_pieces", measured_pieces)
    gc.collect()
    gc.freeze()  # for the speed of the collections above
    tracemalloc.start()
    try:
        for _ in predictor.stream(texts, look_ahead=16_000):
            pass
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    return most


def test_memory_does_not_grow_with_the_texts(predictor: NerPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (
        held_memory(predictor, monkeypatch, (" ".join(sentences(5)) for _ in range(count))) for count in (60, 240)
    )
    assert many < 1.2 * few


def test_memory_grows_little_with_one_long_text(predictor: NerPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = (
        held_memory(predictor, monkeypatch, iter(["the man left " * count]), size=2000, context=200)
        for count in (2_000, 8_000)
    )
    assert long - short < 5 * 3 * 6_000  # 5 bytes per additional word, where its string alone would take 50


def test_empty_texts_have_no_entities(predictor: NerPredictor) -> None:
    assert predictor([]) == []
    assert predictor(["", "   ", "\n"]) == [[], [], []]


def test_a_lone_string_is_refused(predictor: NerPredictor) -> None:
    with pytest.raises(TypeError, match="list of texts"):
        predictor("anna met bob")


HOSTILE = [
    *(
        "",
        " ",
        "\x00",
        "\ufeff",
        "\u200b\u200d\u2060",
        "\ud800",
        "\udfff\ud83d",
        "\r\n",
        "\t\t",
        "\u202e\u2066abc\u2069",
    ),
    *(
        "👩‍👩‍👧‍👦",
        "🇫🇷🇩🇪",
        "e\u0301" * 50,
        "a" + "\u0301" * 3000,
        "x" * 20_000,
        "[CLS] [SEP] [MASK] [PAD] [UNK]",
        "##ing",
    ),
    *(
        "مرحبا بالعالم",
        "שלום עולם",
        "ภาษาไทย",
        "한국어 문장",
        "中文 mixed 文字",
        "\U0010ffff\U000e0001",
        "ﷺ" * 100,
        "Ⅷ½²",
        "İstanbul",
    ),
    *("a." * 5000, "\u3000", "\x1c\u0301", "\x85\u2028\u2029", "\\u0000", "<b>&amp;", "0" * 5000, "ǅ", "ẞ" * 700),
]


def hostile_texts(count: int) -> Iterator[str]:
    """Random texts of odd pieces, names and any Unicode characters."""
    generator = random.Random(0)
    yield from HOSTILE
    for _ in range(count - len(HOSTILE)):
        anywhere = "".join(chr(int(generator.random() ** 3 * 0x110000)) for _ in range(generator.randrange(40)))
        usual = [piece for piece in HOSTILE if len(piece) < 300]
        parts = [anywhere, *generator.choices([*usual, *sentences(5)], k=generator.randrange(4))]
        generator.shuffle(parts)
        yield generator.choice(["", " ", "\n"]).join(parts)


@pytest.mark.parametrize("word_unit", WORD_UNITS)
def test_two_thousand_hostile_texts_are_predicted_with_right_offsets(crf_run: FinishedRun, word_unit: str) -> None:
    texts = list(hostile_texts(2000))
    found = NerPredictor.load(crf_run.folder, "cpu", word_unit=word_unit)(texts)
    assert len(found) == len(texts)
    for text, entities in zip(texts, found, strict=True):
        readable = LONE_SURROGATE.sub("\ufffd", text)
        assert all(readable[entity.start : entity.end] == entity.surface != "" for entity in entities)
        assert all(left.end <= right.start for left, right in pairwise(entities))
        assert all(0 <= entity.confidence <= 1 for entity in entities)
    assert sum(map(len, found)) > 100


def copied(run: FinishedRun, folder: Path) -> Path:
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    return folder


def test_the_word_unit_is_that_of_training(run: FinishedRun, predictor: NerPredictor) -> None:
    assert read_json(run.folder / "config.json")["word_unit"] == predictor.cutter.unit == "word"


def test_a_folder_of_old_warns_about_the_word_unit(
    run: FinishedRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(run, tmp_path / "old")
    config = read_json(folder / "config.json")
    del config["word_unit"]
    (folder / "config.json").write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING):
        assert NerPredictor.load(folder, "cpu").cutter.unit == "auto"
    assert "which word unit" in caplog.text
    caplog.clear()
    assert NerPredictor.load(folder, "cpu", word_unit="char").cutter.unit == "char"
    assert "which word unit" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "device 'abacus'"),
        ({"dtype": "fp8"}, "'fp8' is not one of fp32, bf16, int8"),
        ({"word_unit": "syllable"}, "syllable is none of char, word, token, auto"),
        ({"batch_tokens": 0}, "batch_tokens 0"),
    ],
)
def test_options_that_cannot_be_are_refused(run: FinishedRun, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NerPredictor.load(run.folder, **{"device": "cpu", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no trained model"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "has no tokenizer"),
        (lambda folder: _edit(folder, id2label={str(number): f"LABEL_{number}" for number in range(10)}), "name its"),
        (lambda folder: _edit(folder, vocabulary_digest="0"), "vocabulary differs"),
    ],
)
def test_a_folder_whose_parts_do_not_belong_together_is_refused(
    run: FinishedRun, tmp_path: Path, spoil: object, message: str
) -> None:
    folder = copied(run, tmp_path / "spoilt")
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        NerPredictor.load(folder, "cpu")


def _edit(folder: Path, **changes: object) -> None:
    (folder / "config.json").write_text(json.dumps(read_json(folder / "config.json") | changes))


def test_a_head_of_another_size_than_the_labels_is_refused(run: FinishedRun, tmp_path: Path) -> None:
    folder = copied(run, tmp_path / "spoilt")
    _edit(folder, id2label={"0": "O", "1": "B-PER", "2": "I-PER"}, crf_legal=None)
    with pytest.raises(ValueError, match="do not fit"):
        NerPredictor.load(folder, "cpu")


@pytest.mark.parametrize(
    ("backend", "types"),
    [("cpp", 4), ("cpp", 20), ("torch", 4)],
)
def test_nothing_is_compiled_after_warming_up(
    encoder: Path, bert: PreTrainedTokenizerBase, backend: str, types: int
) -> None:
    tags = ["O", *(f"{prefix}-{number}" for number in range(types) for prefix in "BI")]
    model = BertCrfForNer(AutoConfig.from_pretrained(encoder, id2label=dict(enumerate(tags))))
    with use_backend(backend):
        predictor = NerPredictor(model, bert, "bio", WordCutter("word"), max_seq_length=64)
        crf_backend._load.cache_clear()
        library.load.cache_clear()
        predictor.warm_up()
        compiled = library.load.cache_info().misses
        assert bool(compiled) == (backend == "cpp")
        for texts in ([""], ["anna"], ["anna met bob"] * 40, [" ".join(sentences(60))], ["", *sentences(10)]):
            predictor(texts)
    assert library.load.cache_info().misses == compiled


def test_scores_that_are_no_numbers_are_an_error_and_no_guess(crf_run: FinishedRun) -> None:
    predictor = NerPredictor.load(crf_run.folder, "cpu")
    with torch.no_grad():
        predictor.model.get_parameter("classifier.weight")[0, 0] = torch.nan
    with pytest.raises(ValueError, match="no legal path of finite score in row 0 of the batch"):
        predictor(["Anna lives in Paris"])
