"""ONNX export: onnxruntime gives the model's tags for any number of rows, tokens and words."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from inference.export_onnx import compare, export, main, random_inputs, time_both, write_onnx
from inference.onnx_model import onnx_tagger, open_session
from models import BertCrfForNer, BertCrfPerTypeForNer, BertSoftmaxForNer
from models.heads.flat import FlatTagger
from tests.models.families import LABELS, tiny_tagger
from tests.tools.runs import FinishedRun

LONGEST = 30  # tokens
OUT, B_PER, I_PER, B_LOC, I_LOC, END = 0, 1, 2, 3, 4, 6
FOLLOWERS = [
    [OUT, B_PER, B_LOC, END],
    [OUT, B_PER, I_PER, B_LOC, END],
    [OUT, B_PER, I_PER, B_LOC, END],
    [OUT, B_PER, B_LOC, I_LOC, END],
    [OUT, B_PER, B_LOC, I_LOC, END],
    [OUT, B_PER, B_LOC],
]


def crf_tagger(family: str = "bert") -> BertCrfForNer:
    """A CRF whose emissions and transitions both matter, with the legal transitions of BIO."""
    segments = {"bert": {"type_vocab_size": 2}, "distilbert": {}}  # as published
    model = tiny_tagger(BertCrfForNer, family, initializer_range=0.3, crf_legal=FOLLOWERS, **segments[family])
    for weight in model.crf.parameters():
        weight.data.uniform_(-2, 2)
    return model


def softmax_tagger() -> BertSoftmaxForNer:
    """One with all parts between encoder and head."""
    parts = {"word_pooling": "mean", "last_layers": 2, "bilstm_size": 12}
    changes: dict[str, Any] = {"type_vocab_size": 1, "word_states": parts}  # types as published
    model = tiny_tagger(BertSoftmaxForNer, "roberta", initializer_range=0.3, **changes)
    model.classifier.weight.data.normal_(0, 0.3)  # so that it finds entities
    return model


Exported = tuple[FlatTagger, onnxruntime.InferenceSession, Path]
TAGGERS: dict[str, Callable[[], FlatTagger]] = {
    "bert crf": crf_tagger,
    "distilbert crf": lambda: crf_tagger("distilbert"),
    "roberta softmax": softmax_tagger,
}


@pytest.fixture(scope="module", params=TAGGERS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    tagger = TAGGERS[request.param]()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(tagger, path)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    return tagger, open_session(path), path


def test_tags_are_those_of_the_model(exported: Exported) -> None:
    tagger, session, _ = exported
    comparison = compare(tagger, session, LONGEST, count=100)
    assert comparison.inputs == 100
    assert comparison.words > 1000
    assert comparison.other_tags == 0
    assert comparison.difference < 1e-4
    assert comparison.is_equal


def assert_finds_the_same(tagger: FlatTagger, path: Path) -> None:
    """Entities, tags and confidences, through the file as a tagger."""
    loaded = onnx_tagger(path)
    assert type(loaded) is type(tagger)
    assert sum(weight.numel() for weight in loaded.parameters()) < tagger.num_parameters() / 2
    inputs = random_inputs(tagger, B=8, T=20, W=12, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = (
            one.predict(one(**inputs).logits, inputs["word_mask"], with_confidence=True) for one in (tagger, loaded)
        )
    assert sum(len(one.entities) for one in expected) > 5
    for theirs, ours in zip(expected, found, strict=True):
        assert (ours.entities, ours.tags) == (theirs.entities, theirs.tags)
        assert ours.confidences == pytest.approx(theirs.confidences, abs=1e-4)


def test_entities_and_confidences_are_those_of_the_model(exported: Exported) -> None:
    tagger, _, path = exported
    assert_finds_the_same(tagger, path)


def test_legal_tags_of_a_softmax_head_are_those_of_the_model(tmp_path: Path) -> None:
    biases = {"background_stay": 0.7}
    tagger = tiny_tagger(BertSoftmaxForNer, initializer_range=0.3, tag_decoding="viterbi", transition_biases=biases)
    write_onnx(tagger, tmp_path / "model.onnx")
    comparison = compare(tagger, open_session(tmp_path / "model.onnx"), longest=20, count=10)
    assert (comparison.is_equal, comparison.other_tags) == (True, 0)
    assert_finds_the_same(tagger, tmp_path / "model.onnx")


def test_tags_of_each_type_by_itself_are_those_of_the_model(tmp_path: Path) -> None:
    tagger = tiny_tagger(BertCrfPerTypeForNer, initializer_range=0.3)
    for weight in tagger.crf.parameters():
        weight.data.uniform_(-2, 2)
    write_onnx(tagger, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    comparison = compare(tagger, session, LONGEST)
    assert comparison.is_equal
    assert comparison.other_tags == 0
    assert [each.shape for each in session.get_outputs()] == [["batch", "words", 2], ["batch", "words", 6]]
    assert_finds_the_same(tagger, tmp_path / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert (json.loads(metadata["types"]), json.loads(metadata["tags"])) == (["PER", "LOC"], ["O", "B", "I"])


def test_token_types_are_asked_of_families_that_have_them(exported: Exported) -> None:
    tagger, session, _ = exported
    names = {each.name for each in session.get_inputs()}
    always = {"input_ids", "attention_mask", "word_positions", "word_mask"}
    always |= {"word_lengths"} if tagger.word_options.word_pooling == "mean" else set()
    assert names - always == ({"token_type_ids"} if tagger.config.model_type == "bert" else set())


def test_sizes_are_free_and_tags_have_names(exported: Exported) -> None:
    _, session, _ = exported
    assert {tuple(each.shape) for each in session.get_inputs()} == {("batch", "tokens"), ("batch", "words")}
    assert [each.shape for each in session.get_outputs()] == [["batch", "words"], ["batch", "words", len(LABELS)]]
    assert json.loads(session.get_modelmeta().custom_metadata_map["tags"]) == LABELS


def test_illegal_tags_never_come_out(exported: Exported) -> None:
    tagger, session, _ = exported
    inputs = random_inputs(tagger, B=64, T=LONGEST, W=LONGEST, generator=torch.Generator().manual_seed(3))
    tags, emissions = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    greedy, violations = emissions.argmax(-1), {"crf": 0, "greedy": 0}
    for row, words in enumerate(inputs["word_mask"].sum(1).tolist()):
        for name, path in (("crf", tags[row, :words]), ("greedy", greedy[row, :words])):
            steps = zip([len(LABELS), *path], [*path, END], strict=True)
            violations[name] += sum(after not in FOLLOWERS[before] for before, after in steps)
    assert violations["greedy"] > 10
    assert violations["crf"] == (0 if isinstance(tagger, BertCrfForNer) else violations["greedy"])


def test_another_model_is_told_apart(exported: Exported) -> None:
    tagger, session, _ = exported
    other = TAGGERS["roberta softmax" if isinstance(tagger, BertSoftmaxForNer) else f"{tagger.config.model_type} crf"]()
    assert compare(other, session, LONGEST, count=5).is_equal
    other.classifier.bias.data[B_LOC] += 3
    assert not compare(other, session, LONGEST, count=5).is_equal


def test_other_transitions_are_told_apart(exported: Exported) -> None:
    tagger, session, _ = exported
    if not isinstance(tagger, BertCrfForNer):
        pytest.skip("has no transitions")
    other = crf_tagger(tagger.config.model_type)
    other.crf.transitions.data.neg_()
    comparison = compare(other, session, LONGEST, count=20)
    assert comparison.difference < 1e-4
    assert comparison.other_tags > 0
    assert comparison.regret > 0.1
    assert not comparison.is_equal


def test_both_are_timed(exported: Exported) -> None:
    torch_ms, onnx_ms = time_both(*exported[:2], B=2, T=8, W=5, repeats=2)
    assert 0 < torch_ms < 10_000
    assert 0 < onnx_ms < 10_000


def test_the_command_writes_and_checks_the_file(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ner.onnx"
    monkeypatch.setattr(sys, "argv", ["export_onnx", str(crf_run.folder), f"--output={path}"])
    main()
    printed = capsys.readouterr().out
    assert "all tags equal or tied" in printed
    assert "speed-up" in printed
    metadata = open_session(path).get_modelmeta().custom_metadata_map
    assert metadata["markup"]
    config = json.loads((crf_run.folder / "config.json").read_text("utf-8"))
    for name in ("eval_max_seq_length", "window_overlap", "word_unit", "kept_words"):
        assert json.loads(metadata[name]) == config[name]


def test_the_scheme_of_a_model_of_the_field_is_named_in_the_file(softmax_run: FinishedRun, tmp_path: Path) -> None:
    folder = shutil.copytree(softmax_run.folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    markup = config.pop("tag_markup")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    export(folder, tmp_path / "new" / "ner.onnx")
    assert open_session(tmp_path / "new" / "ner.onnx").get_modelmeta().custom_metadata_map["markup"] == markup


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no trained model"):
        export(tmp_path, tmp_path / "ner.onnx")
    assert not list(tmp_path.iterdir())


def test_more_words_than_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="7 words cannot have 6 tokens"):
        random_inputs(softmax_tagger(), B=1, T=6, W=7, generator=torch.Generator())
