"""Models of other projects: their labels are understood as tags, labels for no word are never decoded."""

import logging
from pathlib import Path

import pytest
import torch
import torchcrf
from torch import Tensor
from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedTokenizerBase

from inference.predictor import NerPredictor
from models import BertCrfForNer, BertSoftmaxForNer
from models.tagger import Tagger
from processors.tasks import NUMBERED_TAGS
from tests.tools.runs import crf, edit_json, replace
from tools.evaluate import evaluate
from tools.heads import head_of_folder
from tools.loading import load_model_and_tokenizer
from tools.run import Run

TEXTS = ["anna met bob", "the man saw new york and big co near paris"] * 10


def folder_of(head: type[Tagger], labels: int, encoder: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """A model as BERT-NER-Pytorch saves it: its labels have numbers only."""
    torch.manual_seed(0)
    model = head(AutoConfig.from_pretrained(encoder, num_labels=labels))
    with torch.no_grad():
        model.classifier.weight.mul_(30)
        if isinstance(model, BertCrfForNer):
            for scores in model.crf.parameters():
                scores.mul_(20)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    edit_json(folder / "config.json", id2label=None, label2id=None, num_labels=None)
    return folder


def token_classifier(names: list[str], encoder: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """A published model: a token classifier of transformers with these labels."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(encoder, id2label=dict(enumerate(names)), num_labels=len(names))
    model = AutoModelForTokenClassification.from_config(config)
    model.get_parameter("classifier.weight").data.mul_(30)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("head", [BertCrfForNer, BertSoftmaxForNer])
@pytest.mark.parametrize("task", NUMBERED_TAGS)
@pytest.mark.parametrize("is_named", [False, True])
def test_a_model_of_bert_ner_pytorch_predicts(
    encoder: Path,
    bert: PreTrainedTokenizerBase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    head: type[Tagger],
    task: str,
    is_named: bool,
) -> None:
    names = NUMBERED_TAGS[task]
    folder = folder_of(head, len(names), encoder, bert, tmp_path)
    if is_named:
        edit_json(folder / "config.json", id2label=dict(enumerate(names)))
    with caplog.at_level(logging.INFO):
        predictor = NerPredictor.load(folder, "cpu")
    assert (f"using those of BERT-NER-Pytorch for {task}: X, B-" in caplog.text) != is_named
    assert "special labels X, [END], [START]" in caplog.text
    assert predictor.model.label_names == list(names[1:-2])
    assert predictor.cutter.unit == "char"
    assert predictor.model.classifier.out_features == len(names) - 3
    found = [one for entities in predictor(TEXTS) for one in entities]
    assert found
    assert {one.type for one in found} <= {name[2:] for name in names if name[1:2] == "-"}


def test_a_crf_decodes_words_as_it_would_between_cls_and_sep(
    encoder: Path, bert: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    names = NUMBERED_TAGS["cner"]
    folder = folder_of(BertCrfForNer, len(names), encoder, bert, tmp_path)
    kept = [index for index, name in enumerate(names) if name[1:2] == "-" or name == "O"]
    theirs = torchcrf.CRF(len(names), batch_first=True)
    former = BertCrfForNer.from_pretrained(folder, config=AutoConfig.from_pretrained(folder, num_labels=len(names)))
    theirs.load_state_dict(former.crf.state_dict())
    ours = NerPredictor.load(folder, "cpu").model
    emissions = 5 * torch.randn(8, 12, len(names))  # of [CLS], ten words and [SEP]
    emissions[..., [index for index in range(len(names)) if index not in kept]] = -1e4
    emissions[:, [0, -1], names.index("O")] = 1e4  # as all of its training data has them
    expected = torch.tensor(theirs.decode(emissions))[:, 1:-1]
    words: Tensor = emissions[:, 1:-1, kept]
    found = ours.decode(words, torch.ones(8, 10, dtype=torch.bool))
    assert torch.equal(torch.tensor(kept)[found], expected)


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (30, "", "does not name its 30 labels in id2label; add them"),
        (23, "cluener", "does not name its 23 labels in id2label, which are not the 34 of cluener; add them"),
    ],
)
def test_labels_without_names_are_not_guessed(
    encoder: Path, bert: PreTrainedTokenizerBase, tmp_path: Path, labels: int, task: str, message: str
) -> None:
    folder = folder_of(BertCrfForNer, labels, encoder, bert, tmp_path)
    args = crf(output_dir=str(folder), do_eval=True, task_name=task)
    with pytest.raises(ValueError, match=message):
        load_model_and_tokenizer(args, BertCrfForNer)


def test_a_token_classifier_that_numbers_its_labels_is_not_taken_for_one_of_that_project(
    encoder: Path, bert: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = token_classifier([f"LABEL_{number}" for number in range(23)], encoder, bert, tmp_path)
    with pytest.raises(ValueError, match="does not name its 23 labels"):
        NerPredictor.load(folder, "cpu")


@pytest.mark.parametrize(
    ("names", "markup", "log"),
    [
        ("O I-LOC I-ORG I-PER", "iob1", ""),
        ("O LOC ORG PER", "iob1", "tags without prefixes (IO)"),
        ("O B_LOC I_LOC B_ORG I_ORG B_PER I_PER", "bio", "tags written PREFIX_TYPE"),
        ("[CLS] [SEP] X O B-LOC I-LOC B-ORG I-ORG B-PER I-PER", "bio", "special labels X, [CLS], [SEP]"),
        ("PAD O PER-B PER-I LOC-B LOC-I ORG-B ORG-I", "bio", "tags written TYPE-PREFIX"),
        ("B-LOC B-ORG O I-PER I-LOC I-ORG", "iob1", ""),
        ("O B-LOC I-LOC B-ORG I-ORG B-PER I-PER S-PER", "bios", ""),
        ("LOC NOUN ORG PER X", "bios", "classes of single words"),
    ],
)
def test_a_published_model_predicts_and_is_scored(
    softmax_args: Run,
    encoder: Path,
    bert: PreTrainedTokenizerBase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    names: str,
    markup: str,
    log: str,
) -> None:
    folder = token_classifier(names.split(), encoder, bert, tmp_path / "published")
    with caplog.at_level(logging.INFO):
        predictor = NerPredictor.load(folder, "cpu", word_unit="word")
    assert log in caplog.text
    assert any(predictor(TEXTS))
    args = replace(softmax_args, do_train=False, from_scratch=False, do_eval=True, output_dir=str(folder))
    args, model, tokenizer = load_model_and_tokenizer(args, head_of_folder(folder))
    scores = evaluate(args, model, tokenizer)
    assert args.markup == markup
    assert scores["support"] == 38
    assert 0 < scores["loss"] < float("inf")
    assert scores["recall"] > 0
    adopted = BertSoftmaxForNer.from_pretrained(folder)  # by someone's own code
    assert evaluate(args, adopted, tokenizer) == scores


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("O B-PER I-PER Q-LOC", r"published/config\.json, id2label: 'Q-LOC' is not a tag"),
        ("O B-PER PER", r"published/config\.json, id2label: 'PER' is not a tag"),
        ("O B-PER B-PER", r"published/config\.json, id2label: several labels are named B-PER"),
    ],
)
def test_labels_that_cannot_be_understood_are_named_with_their_file(
    encoder: Path, bert: PreTrainedTokenizerBase, tmp_path: Path, names: str, message: str
) -> None:
    folder = token_classifier(names.split(), encoder, bert, tmp_path / "published")
    with pytest.raises(ValueError, match=message):
        NerPredictor.load(folder, "cpu")


def test_words_whose_tag_a_model_lacks_count_in_the_scores_but_not_in_the_loss(
    softmax_args: Run,
    encoder: Path,
    bert: PreTrainedTokenizerBase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = token_classifier(["O", "B-LOC", "I-LOC", "B-ORG", "B-PER", "I-PER"], encoder, bert, tmp_path / "published")
    edit_json(folder / "config.json", tag_markup="bio")
    args = replace(softmax_args, do_train=False, from_scratch=False, do_eval=True, output_dir=str(folder))
    args, model, tokenizer = load_model_and_tokenizer(args, BertSoftmaxForNer)
    assert model.missing_labels == ["I-ORG"]
    with caplog.at_level(logging.WARNING):
        scores = evaluate(args, model, tokenizer)
    assert "words have a tag that the model lacks; they do not count in the loss: I-ORG" in caplog.text
    assert scores["types"]["ORG"]["support"] > 0
    assert 0 < scores["loss"] < float("inf")
