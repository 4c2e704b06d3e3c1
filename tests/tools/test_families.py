"""Every family of encoders from a published folder to entities: trained, restored, resumed, saved, loaded."""

import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertForPreTraining

from inference.predictor import NerPredictor
from models import BertCrfForNer, BertSoftmaxForNer
from tests.helpers import write_corpus
from tests.models.families import EVERY_FAMILY, tiny_config
from tests.tools.encoder_folders import write_encoder_folder
from tests.tools.runs import call_script, crf, options_of_run, read_json, read_predictions
from tools.data import load_and_cache_examples
from tools.heads import restore_weights
from tools.loading import load_tokenizer
from tools.settings import ModelSettings

FORMER_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


@pytest.fixture(scope="module", autouse=True)
def _small_unicode() -> Any:
    """CANINE's tokenizer lists all of Unicode several times when it is made, which takes seconds."""
    with patch("transformers.models.canine.tokenization_canine.UNICODE_VOCAB_SIZE", 128):
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("families") / "corpus", {"train": 8, "dev": 4, "test": 4})


def with_former_names(folder: Path, suffix: str) -> Path:
    """BERT as it was published: prefix, heads of the pretraining, ``gamma`` and ``beta``, a config without a family."""
    model = BertForPreTraining(AutoConfig.from_pretrained(folder))
    weights = {}
    for name, weight in model.state_dict().items():
        for new, former in FORMER_NAMES.items():
            name = name.replace(new, former)
        weights[name] = weight.clone()
    (folder / "model.safetensors").unlink()
    if suffix == "bin":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("family", [*EVERY_FAMILY, "bert.bin", "bert.safetensors"])
def test_from_a_published_folder_to_entities(family: str, corpus: Path, tmp_path: Path) -> None:
    family, _, former = family.partition(".")
    encoder = write_encoder_folder(family, tmp_path / "encoder")
    if former:
        with_former_names(encoder, former)
    options = options_of_run(encoder, corpus, tmp_path) | {"do_train": True, "max_steps": 2, "save_steps": 1}
    options |= {"logging_steps": 1, "per_gpu_train_batch_size": 4}
    checkpoints = {"eval_all_checkpoints": True, "predict_checkpoints": 1} if former else {}
    call_script("run_ner_crf", **options, do_eval=True, do_predict=True, **checkpoints)
    run = tmp_path / "run"
    for folder in (run, run / "checkpoint-1", run / "checkpoint-best") if former else (run,):
        assert math.isfinite(read_json(folder / "eval_results.json")["loss"])
    best = load_file(run / "checkpoint-best" / "model.safetensors")
    assert all(torch.equal(weight, best[name]) for name, weight in load_file(run / "model.safetensors").items())

    resumed = tmp_path / "resumed"
    call_script("run_ner_crf", **options | {"output_dir": resumed, "resume_from_checkpoint": run / "checkpoint-1"})
    there, here = (load_file(folder / "checkpoint-2" / "model.safetensors") for folder in (run, resumed))
    assert all(torch.equal(weight, here[name]) for name, weight in there.items())

    predictor = NerPredictor.load(run, device="cpu")
    assert len(predictor([row["text"] for row in read_predictions(run)])) == 4
    dataset = load_and_cache_examples(crf(**options), "tiny", predictor.tokenizer, "dev")
    for features in dataset:
        words = dataset.document(features.document).words[features.first_word :][: len(features.word_positions)]
        firsts = predictor.tokenizer.convert_ids_to_tokens(features.input_ids[features.word_positions].tolist())
        for word, piece in zip(words, firsts, strict=True):
            assert word.startswith(piece.lstrip("▁Ġ")) or piece == predictor.tokenizer.unk_token


@pytest.mark.parametrize(
    ("family", "need"),
    [("t5", "input for a decoder"), ("bros", "page layout"), ("modernvbert", "images"), ("markuplm", "HTML")],
)
def test_families_that_need_more_than_text_are_refused_by_name(family: str, need: str) -> None:
    with pytest.raises(ValueError, match=f"{family} models need other inputs than text: .*{need}"):
        BertSoftmaxForNer(AutoConfig.for_model(family))


@pytest.mark.parametrize("family", ["albert", "bert", "canine", "deberta-v2", "esm", "eurobert", "roberta", "xlnet"])
def test_a_folder_without_tokenizer_files_is_refused(family: str, tmp_path: Path) -> None:
    folder = write_encoder_folder(family, tmp_path / "encoder", weights=False)
    config = tiny_config(family)
    assert len(load_tokenizer(ModelSettings(), str(folder), config)) > 30
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    if family == "canine":  # whose tokenizer needs no file
        load_tokenizer(ModelSettings(), str(folder), config)
        return
    with pytest.raises(ValueError, match=rf"encoder has no tokenizer for {family}.*copy the tokenizer files"):
        load_tokenizer(ModelSettings(), str(folder), config)


@pytest.mark.parametrize("damage", ["missing", "unexpected", "of another shape"])
def test_weights_that_do_not_fit_are_listed(damage: str, tmp_path: Path) -> None:
    model = BertCrfForNer(tiny_config("bert"))
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if damage == "missing":
        del weights["crf.transitions"]
    elif damage == "unexpected":
        weights["lstm.weight"] = weights["classifier.weight"].clone()
    else:
        weights["bert.embeddings.LayerNorm.bias"] = weights["bert.embeddings.LayerNorm.bias"][:8].clone()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    name = {"missing": "crf.transitions", "unexpected": "lstm.weight"}.get(damage, "bert.embeddings.LayerNorm.bias is")
    with pytest.raises(ValueError, match=f"do not fit BertCrfForNer .*{damage}: {name}"):
        restore_weights(model, tmp_path)


def test_a_damaged_file_of_weights_is_named(tmp_path: Path) -> None:
    model = BertSoftmaxForNer(tiny_config("bert"))
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"the weights of .* cannot be read"):
        restore_weights(model, tmp_path)
