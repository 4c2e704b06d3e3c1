"""Parts of a recipe between encoder and head: pooling, mean of layers, word dropout, BiLSTM, and class weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from common.entities import Entity
from models import BertCrfForNer, BertSoftmaxForNer
from models.heads.flat import FlatTagger
from models.tagger import LabelSpace, Tagger
from models.word_states import BiLstm, WordStateOptions
from processors.examples import Example
from processors.features.build import convert_examples_to_features
from tests.models.families import LABELS, collate, random_rows, scores, tiny_config, tiny_tagger
from tools.optimizer import checkpoint_layers, parameter_groups
from tools.settings import MachineSettings
from tools.training_settings import OptimisationSettings

ALL = {"word_pooling": "mean", "last_layers": 2, "bilstm_size": 12}
PARTS = [{name: value} for name, value in ALL.items()] + [ALL]
HEADS: list[type[FlatTagger]] = [BertSoftmaxForNer, BertCrfForNer]
each_part = pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "+".join(parts))


@pytest.mark.parametrize(
    ("head", "family", "parts"),
    [
        *((BertSoftmaxForNer, "bert", parts) for parts in PARTS),
        *((BertCrfForNer, family, ALL) for family in ("xlnet", "canine", "distilbert")),
    ],
)
def test_padding_changes_nothing_and_every_weight_learns(
    head: type[Tagger], family: str, parts: dict[str, Any]
) -> None:
    model = tiny_tagger(head, family, word_states=parts)
    rows = random_rows([14, 5, 9, 2])
    together, _ = scores(model, collate(rows, model.config, extra_padding=3))
    for index, row in enumerate(rows):
        alone, _ = scores(model, collate([row], model.config))
        torch.testing.assert_close(together[index, : len(row.positions)], alone[0], atol=2e-5, rtol=1e-4)
    model(**collate(rows, model.config)).loss.backward()
    assert not [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not torch.allclose(together, scores(tiny_tagger(head, family), collate(rows, model.config, 3))[0])


def test_a_word_has_the_mean_of_its_pieces_and_layers() -> None:
    model: Any = tiny_tagger(BertSoftmaxForNer, word_states={"word_pooling": "mean", "last_layers": 2})
    (row,) = rows = random_rows([14])
    batch = collate(rows, model.config)
    with torch.no_grad():
        layers = model.bert(batch["input_ids"], output_hidden_states=True).hidden_states[-2:]
        pieces = (layers[0] + layers[1])[0] / 2  # (T, H)
        places = zip(row.positions.tolist(), row.lengths.tolist(), strict=True)
        means = [pieces[start : start + length].mean(0) for start, length in places]
        expected = model.classifier(torch.stack(means))
    torch.testing.assert_close(scores(model, batch)[0][0], expected)
    del batch["word_lengths"]
    with pytest.raises(ValueError, match="needs word_lengths"):
        model(**batch)


@pytest.mark.parametrize("on_left", [False, True])
def test_the_pieces_of_a_word_end_where_the_next_word_or_the_text_does(tokenizer: Any, on_left: bool) -> None:
    words = ["the", "man", "from", "Yorktownish", "met", "qqq", "in", "abcdefg"] * 6
    example = Example("x", words, [Entity("X", 0, 0)])
    special = {"cls_token": tokenizer.cls_token, "sep_token": tokenizer.sep_token, "cls_token_at_end": on_left}
    dataset = convert_examples_to_features(
        [example], ["O", "B-X", "I-X"], 24, tokenizer, pad_on_left=on_left, **special
    )
    assert len(dataset) > 2  # so that windows end in words that they do not own
    alone = [
        len(one.input_ids) - 2
        for one in convert_examples_to_features(
            [Example(word, [word]) for word in words], ["O"], 24, tokenizer, pad_on_left=on_left, **special
        )
    ]
    batch = dataset.inputs(list(dataset))
    for row, feature in enumerate(dataset):
        owned = slice(feature.first_word, feature.first_word + len(feature.word_lengths))
        assert feature.word_lengths.tolist() == alone[owned]
        starts = feature.word_positions.tolist()
        assert [after - before for before, after in pairwise(starts)] == alone[owned][:-1]
        W = len(starts)
        assert batch["word_lengths"][row].tolist() == [*alone[owned], *[0] * (batch["word_mask"].size(1) - W)]


def test_word_dropout_zeroes_words_in_training_only() -> None:
    model: Any = tiny_tagger(BertSoftmaxForNer, word_states={"word_dropout": 0.5}, hidden_dropout_prob=0.0)
    batch = collate(random_rows([20, 20, 20, 20]), model.config)
    plain = tiny_tagger(BertSoftmaxForNer)
    torch.testing.assert_close(scores(model, batch)[0], scores(plain, batch)[0])
    model.train()
    model.bert.eval()
    logits, expected = scores(model, batch)[0], scores(plain, batch)[0]
    of_zeros = (logits == model.classifier.bias).all(-1)
    assert 8 < int(of_zeros.sum()) < 32
    torch.testing.assert_close(logits[~of_zeros], expected[~of_zeros])


@each_part
def test_a_saved_model_brings_its_parts(parts: dict[str, Any], tmp_path: Path) -> None:
    model: Any = tiny_tagger(BertCrfForNer, word_states=parts)
    model.save_pretrained(tmp_path)
    again = BertCrfForNer.from_pretrained(tmp_path)
    assert again.word_options == WordStateOptions(**parts)
    batch = collate(random_rows([12, 7]), model.config)
    assert torch.equal(scores(again.eval(), batch)[0], scores(model, batch)[0])
    if "bilstm_size" in parts:
        before = model.bilstm[0].weight_hh_l0.clone()
        model.reset_head()
        assert not torch.equal(model.bilstm[0].weight_hh_l0, before)


def test_a_config_without_parts_is_that_of_a_token_classifier() -> None:
    config = tiny_config("bert", word_states={"bilstm_size": 8})
    WordStateOptions(last_layers=3).write(config)
    assert config.word_states == {"last_layers": 3}
    WordStateOptions().write(config)
    assert not hasattr(config, "word_states")


def test_more_layers_than_there_are_and_layers_of_other_lengths_are_refused() -> None:
    batch = collate(random_rows([12]), tiny_config("bert"))
    with pytest.raises(ValueError, match="--last_layers 3: the encoder has 2 layers"):
        tiny_tagger(BertSoftmaxForNer, word_states={"last_layers": 3})(**batch)
    with pytest.raises(ValueError, match="--last_layers 3: the layers of this family of encoders differ in length"):
        tiny_tagger(BertSoftmaxForNer, "canine", word_states={"last_layers": 3})(**batch)


def test_the_lstm_has_its_own_rate_and_the_encoder_its_layers() -> None:
    model = tiny_tagger(BertCrfForNer, word_states=ALL)
    optimisation = OptimisationSettings(bilstm_learning_rate=0.5, layer_decay=0.5, learning_rate=0.1)
    rates = {group["name"].partition("/")[0]: group["lr"] for group in parameter_groups(optimisation, model)}
    assert rates["bilstm"] == 0.5
    assert (rates["encoder.1"], rates["encoder.0"], rates["encoder.embeddings"]) == (0.1, 0.05, 0.025)


@pytest.mark.parametrize("how", ["compiled", "checkpointed", "bf16"])
def test_it_is_the_same_however_it_is_computed(how: str) -> None:
    batch = collate(random_rows([12, 7]), tiny_config("bert"))
    head = BertSoftmaxForNer if how == "compiled" else BertCrfForNer
    models = [tiny_tagger(head, word_states=ALL, class_weights={"O": 0.5, "PER": 2.0}) for _ in range(2)]
    if how == "compiled":
        models[1].compile(dynamic=True, backend="eager")
    if how == "checkpointed":
        models[1].train()
        for dropout in (module for module in models[1].modules() if isinstance(module, torch.nn.Dropout)):
            dropout.p = 0.0
        checkpoint_layers(MachineSettings(gradient_checkpointing=True), models[1])
    outputs = []
    for model in models:
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "bf16" and model is models[1]):
            outputs.append(model(**batch))
        outputs[-1].loss.backward()
    close: dict[str, Any] = {"atol": 0.02, "rtol": 0.05} if how == "bf16" else {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(outputs[1].loss, outputs[0].loss, **close)
    if how != "bf16":
        for name, weight in models[1].named_parameters():
            torch.testing.assert_close(weight.grad, models[0].get_parameter(name).grad, **close)


@pytest.mark.parametrize("head", HEADS)
def test_the_words_of_a_type_weigh_as_asked(head: type[FlatTagger]) -> None:
    rows = random_rows([14, 5])
    model = tiny_tagger(head, class_weights={"O": 0.5, "PER": 3.0})
    batch, plain = collate(rows, model.config), tiny_tagger(head)
    assert float(scores(tiny_tagger(head, class_weights={"X": 2.0}), batch)[1]) == pytest.approx(
        float(scores(plain, batch)[1]), rel=1e-5
    )
    shares = []
    for label in range(len(LABELS)):  # rows of one word with this label
        logits, mask = torch.randn(2, 1, len(LABELS)), torch.ones(2, 1, dtype=torch.bool)
        targets = torch.full((2, 1), label)
        with torch.no_grad():
            shares.append((model.losses(logits, targets, mask) / plain.losses(logits, targets, mask)).tolist())
    assert shares == [pytest.approx([weight] * 2, rel=1e-4) for weight in (0.5, 3, 3, 1, 1)]


def test_weights_are_parsed_balanced_kept_with_the_model_and_refused(caplog: pytest.LogCaptureFixture) -> None:
    counts = {"O": 80, "PER": 15, "LOC": 5}
    labels = LabelSpace(["PER", "LOC", "ORG"], "bio", count_words=lambda: counts)
    config = tiny_config("bert")
    for asked, weights in {
        "O=0.5,PER=2": {"O": 0.5, "PER": 2.0},
        "balanced": {"O": 100 / 240, "PER": 100 / 45, "LOC": 100 / 15},
    }.items():
        BertCrfForNer.configure(config, labels, BertCrfForNer.Options(class_weights=asked))
        assert config.class_weights == pytest.approx(weights)
    caplog.clear()
    BertCrfForNer.override(config, BertCrfForNer.Options(class_weights="balanced"))
    assert not caplog.messages
    BertCrfForNer.override(config, BertCrfForNer.Options(class_weights="O=3"))
    assert "--class_weights O=3: the model was trained with {'O': " in caplog.text
    refused = {"PER": "'PER' is not of the form", "PER=0": "'PER=0' is not", "X=2": "'X' is none of O, PER"}
    for asked, said in refused.items():
        with pytest.raises(ValueError, match=f"--class_weights {asked}: {said}"):
            BertCrfForNer.configure(config, labels, BertCrfForNer.Options(class_weights=asked))
    BertCrfForNer.configure(config, labels, BertCrfForNer.Options())
    assert not hasattr(config, "class_weights")


def test_the_lstm_is_a_bidirectional_one_over_the_words_of_each_row() -> None:
    ours, theirs = BiLstm(6, 4), torch.nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    for part, suffix in zip(ours, ("", "_reverse"), strict=True):
        for name, weight in part.named_parameters():
            theirs.get_parameter(name + suffix).data.copy_(weight)
    states, lengths = torch.randn(3, 5, 6), torch.tensor([5, 2, 3])
    packed = torch.nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    mask = torch.arange(5) < lengths[:, None]
    torch.testing.assert_close(ours(states, mask)[mask], expected[mask])
