"""What all taggers share, over every family of encoders."""

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, T5GemmaConfig

from models import HEADS, BertCrfForNer, BertSoftmaxForNer
from models.encoders import width_of
from models.tagger import Tagger
from tests.models.families import (
    EVERY_FAMILY,
    FAMILIES,
    LABELS,
    PREFIXES,
    batch_of,
    collate,
    random_rows,
    scores,
    tiny_config,
    tiny_tagger,
)

FLAT: list[type[Tagger]] = [BertSoftmaxForNer, BertCrfForNer]
NESTING = [head for head in HEADS.values() if head not in FLAT]
all_families = pytest.mark.parametrize("family", FAMILIES)
both_heads = pytest.mark.parametrize("model_class", FLAT)
every_head = pytest.mark.parametrize("model_class", [*FLAT, *NESTING])


def every_head_with(families: list[str]) -> pytest.MarkDecorator:
    """The flat heads on all of these families, the others on BERT."""
    combinations = [*itertools.product(families, FLAT), *(("bert", head) for head in NESTING)]
    return pytest.mark.parametrize(("family", "model_class"), combinations)


@all_families
@both_heads
def test_encoder_head_and_crf_are_saved_under_their_own_names(family: str, model_class: type[Tagger]) -> None:
    model = tiny_tagger(model_class, family)
    parts = {name.partition(".")[0] for name in model.state_dict()}
    assert parts == {PREFIXES[family], "classifier"} | ({"crf"} if model_class is BertCrfForNer else set())


@all_families
def test_a_word_is_scored_by_the_state_at_its_position(family: str) -> None:
    model = tiny_tagger(BertSoftmaxForNer, family)
    rows = random_rows([12, 7, 9])
    batch = collate(rows, model.config)
    encoder = getattr(model, PREFIXES[family])
    types = {"token_type_ids": batch["token_type_ids"]} if family != "distilbert" else {}
    with torch.no_grad():
        states = encoder(batch["input_ids"], attention_mask=batch["attention_mask"], **types)[0]
    logits, _ = scores(model, batch)
    for row in range(len(rows)):
        for word in range(len(rows[row].positions)):
            state = states[row, int(batch["word_positions"][row, word])]
            torch.testing.assert_close(logits[row, word], model.classifier(state))


@every_head_with(EVERY_FAMILY)
def test_neighbours_and_padding_change_neither_logits_nor_loss(family: str, model_class: type[Tagger]) -> None:
    model = tiny_tagger(model_class, family)
    rows = random_rows([14, 5, 9, 2])
    together, loss = scores(model, batch_of(model, rows, extra_padding=3))
    summed = 0.0
    for index, row in enumerate(rows):
        alone, loss_alone = scores(model, batch_of(model, [row]))
        W = len(row.positions)
        torch.testing.assert_close(together[index, :W], alone[0], atol=2e-5, rtol=1e-4)
        summed += float(loss_alone) * W
    words = sum(len(row.positions) for row in rows)
    assert float(loss) == pytest.approx(summed / words, rel=1e-4)


@every_head
def test_the_loss_is_a_mean_over_words_unless_told_how_many_there_are(model_class: type[Tagger]) -> None:
    model = tiny_tagger(model_class)
    batch = batch_of(model, random_rows([14, 5, 9]))
    words = int(batch["word_mask"].sum())
    mean, of_ten = scores(model, batch)[1], scores(model, batch, num_items_in_batch=10)[1]
    assert float(of_ten) == pytest.approx(float(mean) * words / 10, rel=1e-5)


@every_head
def test_without_labels_there_is_no_loss(model_class: type[Tagger]) -> None:
    model = tiny_tagger(model_class)
    batch = collate(random_rows([6]), model.config)
    del batch["labels"]
    assert model(**batch).loss is None


@both_heads
def test_without_word_positions_every_token_is_a_word(model_class: type[Tagger]) -> None:
    model = tiny_tagger(model_class)
    input_ids = torch.randint(6, 60, (2, 8))
    attention_mask = torch.ones(2, 8, dtype=torch.long)
    attention_mask[1, 5:] = 0
    labels = torch.randint(0, len(LABELS), (2, 8))
    positions = torch.arange(8).expand(2, -1)
    explicit = model(input_ids, attention_mask, None, positions, attention_mask.bool(), labels)
    implicit = model(input_ids, attention_mask, labels=labels)
    torch.testing.assert_close(implicit.logits, explicit.logits)
    torch.testing.assert_close(implicit.loss, explicit.loss)
    assert model(input_ids).logits.shape == (2, 8, len(LABELS))


@every_head_with(FAMILIES)
def test_every_trainable_weight_gets_a_gradient(family: str, model_class: type[Tagger]) -> None:
    """Else DistributedDataParallel waits for it."""
    model = tiny_tagger(model_class, family)
    model.train()(**batch_of(model, random_rows([12, 7]))).loss.backward()
    idle = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not idle


@all_families
def test_a_pretrained_encoder_is_taken_over_and_only_the_head_is_new(family: str, tmp_path: Path) -> None:
    encoder = AutoModel.from_config(tiny_config(family))
    encoder.save_pretrained(tmp_path)
    model, report = BertCrfForNer.from_pretrained(tmp_path, config=tiny_config(family), output_loading_info=True)
    assert {name.partition(".")[0] for name in report["missing_keys"]} == {"classifier", "crf"}
    loaded = getattr(model, PREFIXES[family]).state_dict()
    for name, weight in encoder.state_dict().items():
        assert name.startswith("pooler") or torch.equal(loaded[name], weight), name


@every_head_with(FAMILIES)
def test_a_tagger_is_saved_as_safetensors_and_loads_as_it_was(
    family: str, model_class: type[Tagger], tmp_path: Path
) -> None:
    model = tiny_tagger(model_class, family)
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    assert not list(tmp_path.glob("*.bin"))
    again = model_class.from_pretrained(tmp_path)
    assert again.label_names == model.label_names
    assert again.types == ["PER", "LOC"]
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [
        ("bert", {"hidden_dropout_prob": 0.3}, 0.3),
        ("bert", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.0}, 0.0),
        ("distilbert", {"seq_classif_dropout": 0.25}, 0.25),
        ("xlnet", {"dropout": 0.15}, 0.15),
    ],
)
def test_the_heads_dropout_is_that_of_the_config(family: str, changes: dict[str, float], expected: float) -> None:
    assert tiny_tagger(BertSoftmaxForNer, family, **changes).dropout.p == expected


def test_dropout_acts_in_training_only() -> None:
    model = tiny_tagger(BertSoftmaxForNer, hidden_dropout_prob=0.5)
    batch = collate(random_rows([12]), model.config)
    assert torch.equal(scores(model, batch)[0], scores(model, batch)[0])
    model.train()
    assert not torch.equal(scores(model, batch)[0], scores(model, batch)[0])


def test_an_encoder_of_unknown_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'t5gemma' has no hidden size"):
        width_of(T5GemmaConfig())


def test_the_head_has_one_row_a_label() -> None:
    model = tiny_tagger(BertCrfForNer)
    assert isinstance(model.classifier, nn.Linear)
    assert model.classifier.out_features == model.crf.num_tags == len(LABELS)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_attends_as_it_would_by_itself(family: str) -> None:
    config = tiny_config(family)
    alone = AutoModel.from_config(tiny_config(family))
    assert BertSoftmaxForNer(config).config._attn_implementation == alone.config._attn_implementation


@pytest.mark.parametrize("family", ["bert", "electra", "albert", "roberta"])
def test_new_token_types_begin_as_the_first(family: str, tmp_path: Path) -> None:
    model = tiny_tagger(BertSoftmaxForNer, family)
    batch = collate(random_rows([12, 7]), model.config)
    batch["token_type_ids"] = torch.zeros_like(batch["token_type_ids"])
    expected, _ = scores(model, batch)
    former = model.config.type_vocab_size
    types = model.add_token_types(3)
    assert types == [former, former + 1, former + 2]
    for token_type in types:
        batch["token_type_ids"].fill_(token_type)
        torch.testing.assert_close(scores(model, batch)[0], expected)
    embeddings = next(weight for name, weight in model.named_parameters() if "token_type_embeddings" in name)
    assert embeddings.requires_grad
    embeddings.data[types[1]] += 1
    batch["token_type_ids"].fill_(types[1])
    changed, _ = scores(model, batch)
    assert not torch.allclose(changed, expected)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(scores(BertSoftmaxForNer.from_pretrained(tmp_path).eval(), batch)[0], changed)


@pytest.mark.parametrize("family", ["distilbert", "xlnet", "deberta-v2"])
def test_families_without_embeddings_of_token_types_get_no_more(family: str) -> None:
    model = tiny_tagger(BertSoftmaxForNer, family, **({"type_vocab_size": 0} if family == "deberta-v2" else {}))
    with pytest.raises(ValueError, match=f"{family} encoders have no token type embeddings"):
        model.add_token_types(1)


def test_attention_needs_no_plan_for_each_batch_shape() -> None:
    assert not torch.backends.cuda.cudnn_sdp_enabled()
