"""Classifiers from an encoder: what of it may be random, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from lightning_runs.glue_classifier import fitting_length, load_classifier_and_tokenizer
from tests.tools.runs import read_json
from tools.settings import ModelSettings


@pytest.fixture
def pretrained(encoder: Path, bert: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """An encoder with weights and without a head."""
    AutoModel.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    return tmp_path


def arguments(folder: Path) -> ModelSettings:
    return ModelSettings(model_name_or_path=str(folder))


def change_config(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(read_json(folder / "config.json") | changes))


def test_a_new_head_leaves_the_encoder_as_it_is(pretrained: Path) -> None:
    model, _ = load_classifier_and_tokenizer(arguments(pretrained), ["no", "yes", "perhaps"], do_train=True)
    assert model.get_parameter("classifier.weight").shape == (3, 64)
    loaded = model.state_dict()
    for name, weight in load_file(pretrained / "model.safetensors").items():
        assert torch.equal(loaded[f"bert.{name}"], weight), name


def test_a_head_for_other_classes_starts_anew(pretrained: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(pretrained, num_labels=4).save_pretrained(pretrained)
    model, _ = load_classifier_and_tokenizer(arguments(pretrained), ["no", "yes"], do_train=True)
    assert model.get_parameter("classifier.weight").shape == (2, 64)


def test_an_encoder_may_lack_its_pooler_when_training(pretrained: Path) -> None:
    AutoModel.from_pretrained(pretrained, add_pooling_layer=False).save_pretrained(pretrained)
    load_classifier_and_tokenizer(arguments(pretrained), ["no", "yes"], do_train=True)


def test_weights_of_another_shape_than_the_configs_are_refused(pretrained: Path) -> None:
    change_config(pretrained, intermediate_size=128)
    with pytest.raises(ValueError, match=r"do not fit .*bert\.encoder\.layer\.0\.intermediate\.dense\.weight"):
        load_classifier_and_tokenizer(arguments(pretrained), ["no", "yes"], do_train=True)


def test_texts_are_no_longer_than_the_encoder_has_positions(pretrained: Path) -> None:
    model, _ = load_classifier_and_tokenizer(arguments(pretrained), ["0", "1"], do_train=True)
    assert (fitting_length(128, model), fitting_length(32, model)) == (64, 32)
