"""Classifiers from an encoder: what of it may be random, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from lightning_runs.glue_model import fitted_run, load_classifier_and_tokenizer
from tests.tools.runs import read_json
from tools.run import Run
from tools.settings import Settings


@pytest.fixture
def pretrained(encoder: Path, bert: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """An encoder with weights and without a head."""
    AutoModel.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    return tmp_path


def run_of(folder: Path, **flags: Any) -> Run:
    return Run.of(Settings.of(model_name_or_path=str(folder), do_train=True).replace(**flags))


def change_config(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(read_json(folder / "config.json") | changes))


def test_a_new_head_leaves_the_encoder_as_it_is(pretrained: Path) -> None:
    model, _ = load_classifier_and_tokenizer(run_of(pretrained), ["no", "yes", "perhaps"])
    assert model.get_parameter("classifier.weight").shape == (3, 64)
    loaded = model.state_dict()
    for name, weight in load_file(pretrained / "model.safetensors").items():
        assert torch.equal(loaded[f"bert.{name}"], weight), name


def test_a_head_for_other_classes_starts_anew(pretrained: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(pretrained, num_labels=4).save_pretrained(pretrained)
    model, _ = load_classifier_and_tokenizer(run_of(pretrained), ["no", "yes"])
    assert model.get_parameter("classifier.weight").shape == (2, 64)


def test_an_encoder_may_lack_its_pooler_when_training(pretrained: Path) -> None:
    AutoModel.from_pretrained(pretrained, add_pooling_layer=False).save_pretrained(pretrained)
    load_classifier_and_tokenizer(run_of(pretrained), ["no", "yes"])


def test_weights_of_another_shape_than_the_configs_are_refused(pretrained: Path) -> None:
    change_config(pretrained, intermediate_size=128)
    with pytest.raises(ValueError, match=r"do not fit .*bert\.encoder\.layer\.0\.intermediate\.dense\.weight"):
        load_classifier_and_tokenizer(run_of(pretrained), ["no", "yes"])


def test_texts_are_no_longer_than_the_encoder_has_positions(pretrained: Path) -> None:
    model, _ = load_classifier_and_tokenizer(run_of(pretrained), ["0", "1"])
    lengths = [fitted_run(run_of(pretrained, train_max_seq_length=length), model) for length in (128, 32)]
    assert [run.train_max_seq_length for run in lengths] == [64, 32]
