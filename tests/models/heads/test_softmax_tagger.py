"""The softmax tagger: its losses, and that Hugging Face loads what it saves."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertConfig, pipeline, set_seed

from models import BertSoftmaxForNer
from models.heads.softmax import LOSSES
from tests.models.families import FAMILIES, LABELS, collate, random_rows, scores, tiny_config, tiny_tagger


def word_losses(logits: torch.Tensor, labels: torch.Tensor, tag_loss: str) -> torch.Tensor:
    log_probabilities = F.log_softmax(logits, -1)
    picked = log_probabilities.gather(-1, labels[:, None])[:, 0]
    if tag_loss == "focal":
        return -((1 - picked.exp()) ** 2) * picked
    if tag_loss == "lsr":
        return -0.9 * picked - 0.1 * log_probabilities.mean(-1)
    return -picked


@pytest.mark.parametrize("tag_loss", LOSSES)
def test_the_loss_is_the_mean_over_real_words(tag_loss: str) -> None:
    model = tiny_tagger(BertSoftmaxForNer, tag_loss=tag_loss)
    rows = random_rows([14, 5, 9])
    logits, loss = scores(model, collate(rows, model.config))
    losses = [word_losses(logits[i, : len(row.labels)], row.labels, tag_loss) for i, row in enumerate(rows)]
    torch.testing.assert_close(loss, torch.cat(losses).mean())


def test_cross_entropy_is_the_default_loss() -> None:
    assert tiny_tagger(BertSoftmaxForNer).tag_loss == "ce"


def test_an_unknown_loss_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="'dice' is none of ce, focal, lsr"):
        BertSoftmaxForNer(tiny_config("bert", tag_loss="dice"))


def test_what_stands_at_masked_words_is_not_looked_at() -> None:
    model = tiny_tagger(BertSoftmaxForNer)
    batch = collate(random_rows([14, 5]), model.config)
    filled = batch["labels"].masked_fill(~batch["word_mask"], 3)
    assert float(scores(model, batch)[1]) == float(scores(model, batch, labels=filled)[1])


def test_the_best_tag_is_the_one_of_the_largest_logit() -> None:
    logits = torch.tensor([[[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert tiny_tagger(BertSoftmaxForNer).decode(logits, mask).tolist() == [[1, 0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_its_checkpoint_is_one_of_transformers_token_classifiers(family: str, tmp_path: Path) -> None:
    model = tiny_tagger(BertSoftmaxForNer, family)
    model.save_pretrained(tmp_path)
    theirs, report = AutoModelForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert list(theirs.config.id2label.values()) == LABELS
    batch = collate(random_rows([14, 5, 9]), model.config)
    tokens = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    if family == "distilbert":
        del tokens["token_type_ids"]
    ours, _ = scores(model, batch)
    with torch.no_grad():
        at_tokens = theirs.eval()(**tokens).logits
    at_words = at_tokens.gather(1, batch["word_positions"].unsqueeze(-1).expand(-1, -1, len(LABELS)))
    torch.testing.assert_close(ours[batch["word_mask"]], at_words[batch["word_mask"]])


def test_the_pipeline_of_transformers_gives_the_same_tags(encoder: Path, tmp_path: Path) -> None:
    text = "the man met dan lee near new york and qqq left acme ."
    words = text.split()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    config = BertConfig.from_pretrained(encoder, initializer_range=0.5)  # far apart, so that many tags win
    config.id2label = dict(enumerate(LABELS))
    set_seed(3)
    model = BertSoftmaxForNer(config)
    model.eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    word_ids = encoded.word_ids()
    positions = torch.tensor([[word_ids.index(word) for word in range(len(words))]])
    with torch.no_grad():
        logits = model(**encoded, word_positions=positions).logits
    ours = [LABELS[label] for label in model.decode(logits, torch.ones(1, len(words), dtype=torch.bool))[0]]

    starts = [len(" ".join(words[:index])) + (index > 0) for index in range(len(words))]
    found = pipeline("token-classification", model=str(tmp_path), ignore_labels=[], device="cpu")(text)
    theirs = {int(token["start"]): token["entity"] for token in found}
    assert [theirs[start] for start in starts] == ours
    assert len(set(ours)) > 1
