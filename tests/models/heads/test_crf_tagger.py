"""The CRF tagger: its loss and paths against pytorch-crf and against all paths."""

import itertools
from pathlib import Path

import pytest
import torch
import torchcrf
from torch import Tensor
from transformers import AutoModel

from models import BertCrfForNer
from tests.models.families import LABELS, Row, collate, random_rows, scores, tiny_config, tiny_tagger

C = len(LABELS)


def wide_tagger() -> BertCrfForNer:
    """A tagger whose transitions matter."""
    model = tiny_tagger(BertCrfForNer, initializer_range=0.3)
    for weight in model.crf.parameters():
        weight.data.uniform_(-2, 2)
    return model


def path_score(model: BertCrfForNer, emissions: Tensor, path: list[int]) -> float:
    crf = model.crf
    score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
    score = score + sum(emissions[word, tag] for word, tag in enumerate(path))
    score = score + sum(crf.transitions[left, right] for left, right in itertools.pairwise(path))
    return score.item()


def all_paths(words: int) -> list[list[int]]:
    return [list(path) for path in itertools.product(range(C), repeat=words)]


def short_rows() -> list[Row]:
    return random_rows([8, 2, 6, 4], seed=5)  # 4, 1, 3 and 2 words


def test_the_loss_is_that_of_all_paths() -> None:
    model, rows = wide_tagger(), short_rows()
    logits, loss = scores(model, collate(rows, model.config))
    expected = 0.0
    for index, row in enumerate(rows):
        paths = [path_score(model, logits[index], path) for path in all_paths(len(row.labels))]
        expected += float(torch.tensor(paths).logsumexp(0)) - path_score(model, logits[index], row.labels.tolist())
    assert float(loss) == pytest.approx(expected / sum(len(row.labels) for row in rows), rel=1e-5)


def test_the_loss_is_that_of_pytorch_crf() -> None:
    model, rows = wide_tagger(), random_rows([20, 5, 13])
    batch = collate(rows, model.config)
    logits, loss = scores(model, batch)
    reference = torchcrf.CRF(C, batch_first=True)
    reference.load_state_dict({name: model.crf.state_dict()[name] for name in reference.state_dict()})
    labels = batch["labels"].clamp(min=0)
    expected = -reference(logits, labels, batch["word_mask"], reduction="token_mean")
    torch.testing.assert_close(loss, expected.detach())


def test_the_tags_are_the_best_of_all_paths() -> None:
    model, rows = wide_tagger(), short_rows()
    batch = collate(rows, model.config)
    logits, _ = scores(model, batch)
    best = model.decode(logits, batch["word_mask"])
    for index, row in enumerate(rows):
        found = best[index, : len(row.labels)].tolist()
        assert found == max(all_paths(len(row.labels)), key=lambda path: path_score(model, logits[index], path))


def test_masked_words_may_have_any_label_and_logits() -> None:
    model, rows = wide_tagger(), short_rows()
    batch = collate(rows, model.config)
    mask = batch["word_mask"]
    logits, loss = scores(model, batch)
    filled = batch["labels"].masked_fill(~mask, 3)
    assert float(scores(model, batch, labels=filled)[1]) == float(loss)
    disturbed = logits.masked_fill(~mask.unsqueeze(-1), 50.0)
    assert torch.equal(model.decode(disturbed, mask)[mask], model.decode(logits, mask)[mask])


def test_under_bfloat16_autocast_the_crf_stays_in_float32() -> None:
    model, rows = wide_tagger(), random_rows([20, 5, 13])
    batch = collate(rows, model.config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
        paths = model.decode(output.logits, batch["word_mask"])
    assert output.logits.dtype == torch.bfloat16  # the encoder did run in half precision
    assert output.loss.dtype == torch.float32
    exact = model.losses(output.logits.float(), batch["labels"], batch["word_mask"]).sum()
    torch.testing.assert_close(output.loss, exact / batch["word_mask"].sum())
    assert torch.equal(paths, model.decode(output.logits.float(), batch["word_mask"]))
    output.loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.crf.parameters())


@pytest.mark.parametrize("size", [0.0, 1e3, 1e5])
def test_loss_and_gradients_are_never_nan(size: float) -> None:
    model = wide_tagger()
    generator = torch.Generator().manual_seed(0)
    logits = (size * torch.randn(3, 30, C, generator=generator)).requires_grad_()
    labels = torch.randint(0, C, (3, 30), generator=generator)
    losses = model.losses(logits, labels, torch.ones(3, 30, dtype=torch.bool))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert (losses >= -1e-2 * size).all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_new_transitions_are_as_small_as_pytorch_crf_makes_them(tmp_path: Path) -> None:
    AutoModel.from_config(tiny_config("bert")).save_pretrained(tmp_path)
    config = tiny_config("bert")
    for model in (BertCrfForNer(config), BertCrfForNer.from_pretrained(tmp_path, config=config)):
        for name, weight in model.crf.named_parameters():
            assert weight.abs().max() <= 0.1, name
            assert weight.abs().sum() > 0, name


def test_a_checkpoint_of_bert_ner_pytorch_loads(tmp_path: Path) -> None:
    """Its names: bert.* with a pooler and saved position ids, classifier.*, crf.*; its file: pytorch_model.bin."""
    model = wide_tagger()
    old = model.state_dict()
    assert {"crf.start_transitions", "crf.end_transitions", "crf.transitions", "classifier.weight"} <= old.keys()
    extras = {
        "bert.embeddings.position_ids": torch.arange(40).unsqueeze(0),
        "bert.pooler.dense.weight": torch.randn(32, 32),
        "bert.pooler.dense.bias": torch.randn(32),
    }
    torch.save({**old, **extras}, tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
    loaded, report = BertCrfForNer.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, old[name]), name
    batch = collate(short_rows(), model.config)
    torch.testing.assert_close(scores(loaded.eval(), batch), scores(model, batch))


def test_legal_transitions_of_the_config_hold_in_training_decoding_and_after_loading(tmp_path: Path) -> None:
    config = tiny_config("bert")
    config.crf_legal = [[0, 1, 6], [0, 1, 2, 6], [0, 1, 2, 6], [0, 6], [0, 6], [0, 1]]  # LOC is legal nowhere
    BertCrfForNer(config).save_pretrained(tmp_path)
    loaded = BertCrfForNer.from_pretrained(tmp_path).eval()
    logits, mask = torch.randn(8, 5, len(LABELS)), torch.ones(8, 5, dtype=torch.bool)
    logits[..., 3] += 100
    with torch.no_grad():
        decoded = loaded.decode(logits, mask)
        illegal_losses = loaded.losses(logits, torch.full((8, 5), 3), mask)
    assert set(decoded.flatten().tolist()) <= {0, 1, 2}
    assert not (decoded[:, 0] == 2).any()
    assert illegal_losses.isinf().all()
