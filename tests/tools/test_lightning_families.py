"""Encoders of the families that the Lightning scripts name, from a folder to a trained step."""

import json
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from run_pl_glue import GLUETransformer
from run_pl_ner import NERTransformer
from tests.helpers import write_corpus
from tests.models.families import tiny_config
from tests.tools.lightning_runs import call_lightning, command_line, glue_options, ner_options, read_scores, write_pairs
from tools.lightning_base import BaseTransformer, add_generic_args

NEEDS_VOCABULARY = pytest.mark.corpora
FAMILIES = [
    "bert",
    "distilbert",
    "roberta",
    pytest.param("albert", marks=NEEDS_VOCABULARY),
    pytest.param("xlnet", marks=NEEDS_VOCABULARY),
]
_TOKENIZERS = {"distilbert": "bert"}


@pytest.fixture
def albert(vocab_root: Path, tmp_path: Path) -> PreTrainedTokenizerBase:
    folder = tmp_path / "albert"
    folder.mkdir()
    shutil.copy(vocab_root / "albert-v2-spiece.model", folder / "spiece.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "AlbertTokenizer"}))
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def folder(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny encoder of the family, without weights, and a tokenizer that fits it."""
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(_TOKENIZERS.get(family, family))
    sizes = {"max_position_embeddings": 70} if family != "xlnet" else {}
    config = tiny_config(family, **sizes)
    config.vocab_size = len(tokenizer)
    config.pad_token_id = tokenizer.pad_token_id
    config.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def flags(script: type[BaseTransformer], options: dict[str, Any]) -> Namespace:
    parser = ArgumentParser()
    add_generic_args(parser)
    script.add_model_specific_args(parser)
    return parser.parse_args(command_line(**options))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tagger_of_each_family_is_trained(family: str, folder: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 12, "dev": 5, "test": 5})
    call_lightning("run_pl_ner", **ner_options(folder, corpus, tmp_path, max_epochs=1))
    assert read_scores(tmp_path / "run")["accuracy"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_of_each_family_is_trained(family: str, folder: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", {"train": 16, "dev": 5, "test": 5})
    call_lightning("run_pl_glue", **glue_options(folder, data, tmp_path, max_epochs=1))
    assert read_scores(tmp_path / "run")["acc"] > 0


@pytest.mark.parametrize(("family", "takes"), [("bert", True), ("distilbert", False), ("roberta", True)])
def test_token_types_go_to_models_that_have_them(family: str, takes: bool, folder: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", {"train": 16, "dev": 5, "test": 5})
    model = GLUETransformer(flags(GLUETransformer, glue_options(folder, data, tmp_path)))
    assert ("token_type_ids" in model._inputs) == takes


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_dropouts_reach_the_encoder(family: str, folder: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 12, "dev": 5, "test": 5})
    chosen = ner_options(folder, corpus, tmp_path, dropout=0.37, attention_dropout=0.23)
    model = NERTransformer(flags(NERTransformer, chosen)).model
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert 0.37 in rates
    config = model.config.to_dict()
    assert 0.23 in (config.get("attention_probs_dropout_prob"), config.get("attention_dropout"))
    default = AutoConfig.from_pretrained(folder).to_dict()
    assert default.get("hidden_dropout_prob", default.get("dropout")) == 0.1


@NEEDS_VOCABULARY
@pytest.mark.parametrize("family", ["xlnet"])
def test_a_dropout_that_the_family_lacks_is_refused(family: str, folder: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": 12, "dev": 5, "test": 5})
    with pytest.raises(SystemExit, match=r"--attention_dropout 0\.2: the config of xlnet has no"):
        call_lightning("run_pl_ner", **ner_options(folder, corpus, tmp_path, attention_dropout=0.2))
