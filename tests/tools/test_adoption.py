"""What a model brings to a run that did not train it: labels, scheme, lengths; and what is refused."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from models import BertCrfForNer, BertSoftmaxForNer
from tests.models.families import tiny_config
from tests.tools.runs import replace, softmax, tagger_of
from tools.data import load_and_cache_examples
from tools.evaluate import check_dataset, evaluate
from tools.loading import adopt_model, load_model_and_tokenizer
from tools.run import Run
from tools.run_folder import save_model_folder
from tools.train import train


def trained(args: Run, folder: Path) -> BertCrfForNer:
    args, model, tokenizer = load_model_and_tokenizer(args, BertCrfForNer)
    save_model_folder(folder, args.settings, model, tokenizer)
    return model


def test_a_model_of_the_field_brings_its_scheme() -> None:
    config = tiny_config("bert")
    config.id2label = {0: "O", 1: "B-PER", 2: "I-PER"}
    run = adopt_model(softmax(markup="bios"), BertSoftmaxForNer(config))
    assert (run.markup, run.types) == ("bio", ("PER",))


def test_scores_are_the_same_with_and_without_the_command_line(crf_args: Run, tmp_path: Path) -> None:
    args = replace(crf_args, train_max_seq_length=16, eval_max_seq_length=60)
    trained(args, tmp_path / "run")
    by_script = replace(args, do_train=False, from_scratch=False, output_dir=str(tmp_path / "run"))
    by_script, model, tokenizer = load_model_and_tokenizer(by_script, BertCrfForNer)
    expected = evaluate(by_script, model, tokenizer)
    by_hand = replace(by_script, markup="bio", eval_max_seq_length=60)
    assert evaluate(by_hand, BertCrfForNer.from_pretrained(tmp_path / "run"), tokenizer) == expected


@pytest.mark.parametrize(("letters", "markup"), [("BMES", "bmes"), ("BILU", "bilou")])
def test_other_letters_for_the_same_places_score_the_same(
    crf_args: Run, tmp_path: Path, letters: str, markup: str
) -> None:
    trained(replace(crf_args, markup="bioes"), tmp_path / "run")
    args = replace(crf_args, do_train=False, from_scratch=False, output_dir=str(tmp_path / "run"))
    args, model, tokenizer = load_model_and_tokenizer(args, BertCrfForNer)
    with torch.no_grad():
        model.classifier.bias[model.label_names.index("S-PER")] = 9.0
    expected = evaluate(args, model, tokenizer)
    assert 0 < expected["f1"] < 1
    of_the_field = str.maketrans("BIES", letters)
    names = [name[0].translate(of_the_field) + name[1:] for name in model.label_names]
    model.config.id2label = dict(enumerate(names))
    del model.config.tag_markup
    assert evaluate(args, model, tokenizer) == expected
    assert adopt_model(args, model).markup == markup


def test_a_data_set_of_other_types_is_refused(crf_args: Run) -> None:
    crf_args, model, tokenizer = load_model_and_tokenizer(crf_args, BertCrfForNer)
    dataset = load_and_cache_examples(crf_args, "tiny", tokenizer, "train")
    dataset.types.append("MISC")
    with pytest.raises(ValueError, match="the dataset has entities of type MISC, which the model lacks"):
        check_dataset(dataset, model)


def test_a_data_set_without_the_casings_of_the_model_is_refused(crf_args: Run, tmp_path: Path) -> None:
    with_casing = replace(crf_args, casing=True)
    trained(with_casing, tmp_path / "run")
    model, tokenizer = BertCrfForNer.from_pretrained(tmp_path / "run"), AutoTokenizer.from_pretrained(tmp_path / "run")
    crf_args = dataclasses.replace(crf_args, types=tuple(model.types))
    dataset = load_and_cache_examples(crf_args, "tiny", tokenizer, "train")
    with pytest.raises(
        ValueError,
        match=r"casing token types \[\], the model has \[0, 2, 3, 4\]; call load_and_cache_examples",
    ):
        train(crf_args, dataset, model, tokenizer)
    adopted = adopt_model(crf_args, model)
    check_dataset(load_and_cache_examples(adopted, "tiny", tokenizer, "train"), model)


@pytest.mark.parametrize("kind", ["crf", "softmax"])
@pytest.mark.parametrize("types", ["LOC ORG PER", "PER LOC ORG", "PER ORG MISC"])
def test_a_head_is_kept_for_the_same_labels_in_whatever_order(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, types: str
) -> None:
    args: Run = request.getfixturevalue(f"{kind}_args")
    head = tagger_of(args)
    args, former, tokenizer = load_model_and_tokenizer(args, head)
    save_model_folder(tmp_path / "run", args.settings, former, tokenizer)
    labels = tmp_path / "labels.txt"
    labels.write_text(types.replace(" ", "\n"), "utf-8")
    further = replace(args, from_scratch=False, model_name_or_path=str(tmp_path / "run"), labels=str(labels))
    with caplog.at_level(logging.INFO):
        further, model, _ = load_model_and_tokenizer(further, head)
    assert model.label_names == further.corpus.label_list("bios")
    now, then = model.state_dict(), former.state_dict()
    assert torch.equal(now["bert.embeddings.word_embeddings.weight"], then["bert.embeddings.word_embeddings.weight"])
    if "MISC" in types:
        assert "(new: B-MISC, I-MISC, S-MISC; gone: B-LOC, I-LOC, S-LOC)" in caplog.text
        assert not torch.equal(now["classifier.weight"], then["classifier.weight"])
        return
    assert "reinitialising" not in caplog.text
    ids = [former.label_names.index(tag) for tag in model.label_names]
    logits, mask = torch.randn(4, 12, 10), torch.ones(4, 12, dtype=torch.bool)
    assert torch.equal(now["classifier.weight"], then["classifier.weight"][ids])
    assert torch.equal(torch.tensor(ids)[model.decode(logits[..., ids], mask)], former.decode(logits, mask))
    assert model.config.num_labels == 10
    model.save_pretrained(tmp_path / "again")
    assert type(model).from_pretrained(tmp_path / "again").label_names == model.label_names


def test_constraints_can_be_taken_off_a_trained_model(crf_args: Run, tmp_path: Path) -> None:
    trained(crf_args, tmp_path / "run")
    later = replace(crf_args, do_train=False, output_dir=str(tmp_path / "run"))
    logits, mask = torch.zeros(1, 1, 10), torch.ones(1, 1, dtype=torch.bool)
    logits[..., 2] = 100  # I-LOC at the start
    decoded = []
    for args in (later, replace(later, crf_constraints=False)):
        _, model, _ = load_model_and_tokenizer(args, BertCrfForNer)
        decoded.append(model.decode(logits, mask).item() == 2)
    assert decoded == [False, True]


def test_ignored_words_count_neither_in_the_loss_nor_in_its_mean() -> None:
    config = tiny_config("bert")
    tokens = torch.randint(5, 60, (2, 6))
    labels = torch.tensor([[-100, 1, 2, 0, -100, -100], [-100, 0, 0, 1, 2, -100]])
    for kind in (BertSoftmaxForNer, BertCrfForNer):
        torch.manual_seed(0)
        model = kind(config).eval()
        output = model(tokens, torch.ones_like(tokens), labels=labels)
        kept = labels != -100
        assert output.loss is not None
        assert output.logits is not None
        summed = model.losses(output.logits, labels, kept).sum()
        assert output.loss.item() == pytest.approx(summed.item() / kept.sum().item(), rel=1e-5)


def test_the_mean_is_that_of_transformers() -> None:
    config = tiny_config("bert")
    torch.manual_seed(0)
    twin = AutoModelForTokenClassification.from_config(config).eval()
    ours = BertSoftmaxForNer(config).eval()
    ours.load_state_dict(twin.state_dict())
    tokens = torch.randint(5, 60, (2, 6))
    labels = torch.tensor([[-100, 1, 2, 0, -100, -100], [-100, 0, 0, 1, 2, -100]])
    mask = torch.ones_like(tokens)
    expected = twin(tokens, attention_mask=mask, labels=labels).loss
    loss = ours(tokens, mask, labels=labels).loss
    assert loss is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
