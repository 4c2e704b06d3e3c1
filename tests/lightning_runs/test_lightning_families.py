"""Encoders of the families that the Lightning scripts name, from a folder to a trained step."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from lightning_runs.flags import LightningOptions
from lightning_runs.glue_model import model_inputs
from tests.helpers import write_corpus
from tests.lightning_runs.lightning_runs import (
    call_lightning,
    glue_options,
    ner_options,
    read_scores,
    write_pairs,
)
from tests.tools.encoder_folders import write_encoder_folder

FAMILIES = ["bert", "distilbert", "roberta", "albert", "xlnet"]


@pytest.fixture
def folder(family: str, tmp_path: Path) -> Path:
    return write_encoder_folder(family, tmp_path / "encoder", weights=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tagger_of_each_family_is_trained(family: str, folder: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 12, "dev": 5, "test": 5})
    call_lightning("run_pl_ner", **ner_options(folder, corpus, tmp_path, max_epochs=1))
    assert read_scores(tmp_path / "run")["accuracy"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_of_each_family_is_trained(family: str, folder: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", {"train": 16, "dev": 5, "test": 5})
    call_lightning("run_pl_glue", **glue_options(folder, data, tmp_path, max_epochs=1))
    assert read_scores(tmp_path / "run", "eval")["acc"] > 0


@pytest.mark.parametrize(("family", "takes"), [("bert", True), ("distilbert", False), ("roberta", True)])
def test_token_types_go_to_models_that_have_them(family: str, takes: bool, folder: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder))
    batch = dict.fromkeys(["input_ids", "attention_mask", "token_type_ids", "labels"], torch.zeros(1))
    assert ("token_type_ids" in model_inputs(model, batch)) == takes
    assert "labels" not in model_inputs(model, batch)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_dropouts_reach_the_encoder(family: str, folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    assert getattr(config, "hidden_dropout_prob", getattr(config, "dropout", None)) == 0.1
    LightningOptions(dropout=0.37, attention_dropout=0.23).set_dropouts(config)
    rates = {module.p for module in AutoModel.from_config(config).modules() if isinstance(module, torch.nn.Dropout)}
    assert 0.37 in rates
    values = config.to_dict()
    assert 0.23 in (values.get("attention_probs_dropout_prob"), values.get("attention_dropout"))


@pytest.mark.parametrize("family", ["xlnet"])
def test_a_dropout_that_the_family_lacks_is_refused(family: str, folder: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 12, "dev": 5, "test": 5})
    with pytest.raises(SystemExit, match=r"--attention_dropout 0\.2: the config of xlnet has no"):
        call_lightning("run_pl_ner", **ner_options(folder, corpus, tmp_path, attention_dropout=0.2))
