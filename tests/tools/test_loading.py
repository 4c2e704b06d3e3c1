"""What may be loaded, from where, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase, RobertaConfig

from models import BertCrfForNer, BertSoftmaxForNer
from processors.features.windows import layout_of_tokenizer
from tests.tools.runs import FinishedRun, crf, edit_json, replace
from tools.loading import adopt_model, load_model_and_tokenizer, load_tokenizer
from tools.run import Run
from tools.run_folder import save_model_folder
from tools.settings import ModelSettings


@pytest.fixture
def pretrained(encoder: Path, tmp_path: Path) -> Path:
    """The tiny encoder with weights, as the hub would hold it."""
    folder = tmp_path / "pretrained"
    shutil.copytree(encoder, folder)
    AutoModel.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(folder)
    return folder


@pytest.fixture
def train_args(crf_args: Run, pretrained: Path) -> Run:
    """Arguments that train the pretrained encoder."""
    return replace(crf_args, model_name_or_path=str(pretrained), from_scratch=False)


def load_crf(args: Run) -> tuple[Run, BertCrfForNer, PreTrainedTokenizerBase]:
    return load_model_and_tokenizer(args, BertCrfForNer)


def applying(run: FinishedRun, folder: Path | None = None, **changes: Any) -> Run:
    """Arguments that apply a finished run, perhaps another folder than its own."""
    options = {**run.options, "do_eval": True, **changes}
    if folder is not None:
        options["output_dir"] = str(folder)
    return crf(**options)


def test_a_folder_without_weights_is_an_error_that_names_the_flag(crf_args: Run) -> None:
    with pytest.raises(ValueError, match=r"has no weights .*model\.safetensors.*--from_scratch"):
        load_crf(replace(crf_args, from_scratch=False))


def test_from_scratch_takes_random_weights(crf_args: Run) -> None:
    _, model, tokenizer = load_crf(crf_args)
    assert model.config.vocab_size == len(tokenizer)
    assert 0.01 < model.classifier.weight.std().item() < 0.03


def test_from_scratch_leaves_weights_alone_that_are_there(train_args: Run, pretrained: Path) -> None:
    _, model, _ = load_crf(replace(train_args, from_scratch=True))
    weights = load_file(pretrained / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert not torch.equal(model.state_dict()["bert.embeddings.word_embeddings.weight"], weights)


def test_a_pretrained_encoder_keeps_its_weights(train_args: Run, pretrained: Path) -> None:
    _, model, _ = load_crf(train_args)
    loaded = model.state_dict()
    for name, weight in load_file(pretrained / "model.safetensors").items():
        assert name.startswith("pooler") or torch.equal(loaded[f"bert.{name}"], weight), name


def test_the_vocabulary_of_the_training_is_recorded_with_the_model(train_args: Run) -> None:
    config = load_crf(train_args)[1].config
    assert len(config.vocabulary_digest) == 16
    assert config.lowers_case is True


@pytest.mark.parametrize(
    ("changes", "misfit"),
    [
        ({"intermediate_size": 128}, r"encoder\.layer\.0\.intermediate\.dense\.weight"),
        ({"max_position_embeddings": 128}, r"position_embeddings\.weight is \(64, 64\), not \(128, 64\)"),
        ({"vocab_size": 500}, r"word_embeddings\.weight"),
        ({"type_vocab_size": 5}, r"token_type_embeddings\.weight"),
    ],
)
def test_weights_of_another_shape_than_the_configs_are_refused(
    train_args: Run, pretrained: Path, changes: dict[str, int], misfit: str
) -> None:
    edit_json(pretrained / "config.json", **changes)
    with pytest.raises(ValueError, match=rf"pretrained do not fit .*of another shape: bert\..*{misfit}"):
        load_crf(train_args)


def test_an_encoder_saved_in_half_precision_is_trained_in_float32(train_args: Run, pretrained: Path) -> None:
    AutoModel.from_pretrained(pretrained).half().save_pretrained(pretrained)
    _, model, _ = load_crf(train_args)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_labels_come_from_the_corpus_when_training(train_args: Run) -> None:
    train_args, model, _ = load_crf(train_args)
    assert model.label_names == ["O", *(f"{p}-{t}" for t in ("LOC", "ORG", "PER") for p in "BIS")]
    assert model.config.id2label == dict(enumerate(model.label_names))
    assert model.config.label2id == {label: index for index, label in enumerate(model.label_names)}
    assert model.config.tag_markup == "bios"
    assert model.crf.num_tags == len(model.label_names)


def test_the_loss_type_reaches_the_softmax_tagger(softmax_args: Run) -> None:
    _, model, _ = load_model_and_tokenizer(replace(softmax_args, loss="focal"), BertSoftmaxForNer)
    assert model.tag_loss == model.config.tag_loss == "focal"


def test_the_family_is_found_in_the_config(train_args: Run) -> None:
    train_args, *_ = load_crf(train_args)
    assert train_args.model_type == "bert"


def test_another_family_than_the_configs_is_refused(train_args: Run) -> None:
    with pytest.raises(ValueError, match=r"--model_type roberta does not match the model_type bert in .*config\.json"):
        load_crf(replace(train_args, model_type="roberta"))


def test_a_config_that_names_no_family_wants_model_type(train_args: Run, pretrained: Path) -> None:
    edit_json(pretrained / "config.json", model_type=None)
    with pytest.raises(ValueError, match=r"config\.json has no model_type; .*--model_type"):
        load_crf(train_args)
    _, model, _ = load_crf(replace(train_args, model_type="BERT"))
    assert model.base_model_prefix == "bert"


def test_a_folder_of_googles_release_loads(train_args: Run, pretrained: Path) -> None:
    """bert_config.json without a family, vocab.txt, pytorch_model.bin."""
    edit_json(pretrained / "config.json", model_type=None)
    (pretrained / "config.json").rename(pretrained / "bert_config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (pretrained / name).unlink()
    weights = load_file(pretrained / "model.safetensors")
    torch.save({f"bert.{name}": weight for name, weight in weights.items()}, pretrained / "pytorch_model.bin")
    (pretrained / "model.safetensors").unlink()
    _, model, tokenizer = load_crf(replace(train_args, model_type="bert"))
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(model.state_dict()[f"bert.{name}"], weights[name])
    assert tokenizer.convert_tokens_to_ids("[CLS]") == 2


def test_config_and_tokenizer_may_be_files_elsewhere(train_args: Run, pretrained: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (pretrained / "config.json").rename(elsewhere / "bert_config.json")
    (pretrained / "vocab.txt").rename(elsewhere / "my_vocab.txt")
    edit_json(elsewhere / "bert_config.json", model_type=None)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (pretrained / name).unlink()
    files = {"config_name": elsewhere / "bert_config.json", "tokenizer_name": elsewhere / "my_vocab.txt"}
    names: dict[str, Any] = {name: str(path) for name, path in files.items()}
    *_, tokenizer = load_crf(replace(train_args, model_type="bert", **names))
    assert tokenizer.tokenize("anna met") == ["anna", "met"]


def test_a_vocabulary_file_is_refused_for_families_that_need_more(train_args: Run, pretrained: Path) -> None:
    AutoModel.from_config(
        RobertaConfig(vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(pretrained)
    with pytest.raises(ValueError, match=r"vocab\.txt is a file; for roberta name a folder"):
        load_crf(replace(train_args, tokenizer_name=str(pretrained / "vocab.txt")))


def test_a_folder_without_config_is_refused(train_args: Run, pretrained: Path) -> None:
    (pretrained / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config\.json or bert_config\.json"):
        load_crf(train_args)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(train_args: Run, pretrained: Path) -> None:
    edit_json(pretrained / "config.json", vocab_size=50)
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ entries, the encoder 50"):
        load_crf(replace(train_args, from_scratch=True))


def test_windows_are_no_longer_than_the_encoders_positions(train_args: Run) -> None:
    args = replace(train_args, train_max_seq_length=32)
    args, *_ = load_crf(args)
    assert (args.train_max_seq_length, args.eval_max_seq_length) == (32, 64)


@pytest.mark.parametrize("family", ["roberta", "roberta-prelayernorm", "camembert", "xlm-roberta-xl", "mpnet"])
def test_positions_may_be_counted_from_behind_the_padding(crf_args: Run, family: str) -> None:
    assert_fills_its_windows(crf_args, family, 64, max_position_embeddings=66)


def test_rarer_families_count_so_too(crf_args: Run) -> None:
    positions = {"max_position_embeddings": 66, "pad_token_id": 1}
    assert_fills_its_windows(crf_args, "data2vec-text", 64, **positions)
    assert_fills_its_windows(crf_args, "ibert", 64, **positions)
    assert_fills_its_windows(crf_args, "luke", 64, entity_vocab_size=10, **positions)
    assert_fills_its_windows(crf_args, "esm", 64, position_embedding_type="absolute", mask_token_id=4, **positions)


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert"])
def test_others_are_counted_from_the_start(crf_args: Run, family: str) -> None:
    assert_fills_its_windows(crf_args, family, 66, max_position_embeddings=66)


def assert_fills_its_windows(args: Run, family: str, expected: int, **sizes: Any) -> None:
    """A new encoder's windows are of the expected length, and it takes no longer ones."""
    layers = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(family, vocab_size=60, id2label={0: "O", 1: "S-PER"}, **layers, **sizes)
    model = BertSoftmaxForNer(config).eval()
    args = replace(args, train_max_seq_length=100, eval_max_seq_length=100)
    args = adopt_model(args, model)
    assert (args.train_max_seq_length, args.eval_max_seq_length) == (expected, expected), family
    model(torch.full((1, expected), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, expected + 1), 7))


@pytest.mark.parametrize("from_file", [True, False])
def test_do_lower_case_lowers_what_a_cased_tokenizer_would_not(
    train_args: Run, pretrained: Path, from_file: bool
) -> None:
    _make_cased(pretrained)
    name = str(pretrained / "vocab.txt") if from_file else ""
    *_, lowering = load_crf(replace(train_args, do_lower_case=True, tokenizer_name=name))
    assert lowering.tokenize("Anna MET") == ["anna", "met"]


@pytest.mark.parametrize("from_file", [True, False])
def test_without_do_lower_case_a_cased_encoder_keeps_case(train_args: Run, pretrained: Path, from_file: bool) -> None:
    _make_cased(pretrained)
    name = str(pretrained / "vocab.txt") if from_file else ""
    *_, tokenizer = load_crf(replace(train_args, tokenizer_name=name))
    assert tokenizer.tokenize("anna MET") == ["anna", "[UNK]"]


def _make_cased(folder: Path) -> None:
    from transformers import BertTokenizer

    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)


def test_lower_casing_stays_with_the_saved_tokenizer(
    train_args: Run, pretrained: Path, crf_run: FinishedRun, tmp_path: Path
) -> None:
    _make_cased(pretrained)
    *_, tokenizer = load_crf(replace(train_args, do_lower_case=True))
    folder = tmp_path / "applied"
    shutil.copytree(crf_run.folder, folder)
    tokenizer.save_pretrained(folder)
    *_, again = load_crf(applying(crf_run, folder))
    assert again.tokenize("Anna MET") == ["anna", "met"]


def test_a_finished_run_is_found_in_its_output_dir(crf_run: FinishedRun) -> None:
    args = applying(crf_run, model_name_or_path="not looked at", markup="bio")
    args, model, tokenizer = load_crf(args)
    assert args.markup == "bios"  # as it was trained
    assert list(args.types) == model.types
    assert len(model.label_names) == 10
    weights = load_file(crf_run.folder / "model.safetensors")
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert layout_of_tokenizer(tokenizer).before == (2,)


def test_a_finished_run_can_be_trained_on(crf_run: FinishedRun, crf_args: Run) -> None:
    _, model, _ = load_crf(replace(crf_args, from_scratch=False, model_name_or_path=str(crf_run.folder)))
    weights = load_file(crf_run.folder / "model.safetensors")
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_other_labels_start_the_head_anew_and_keep_the_encoder(crf_run: FinishedRun, crf_args: Run) -> None:
    args = replace(crf_args, from_scratch=False, model_name_or_path=str(crf_run.folder), markup="bioes")
    args, model, _ = load_crf(args)
    assert model.classifier.out_features == len(model.label_names) == 13
    assert (model.crf.transitions.abs() <= 0.1).all()
    weights = load_file(crf_run.folder / "model.safetensors")
    for name, weight in model.bert.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(weight, weights[f"bert.{name}"]), name


def test_nothing_is_applied_before_it_is_trained(crf_args: Run) -> None:
    with pytest.raises(ValueError, match=r"no such folder: .*run; add --do_train, or name the run in --output_dir"):
        load_crf(replace(crf_args, do_train=False, do_eval=True))


def test_an_encoder_without_a_head_is_not_applied(pretrained: Path, crf_run: FinishedRun) -> None:
    edit_json(pretrained / "config.json", id2label={"0": "O", "1": "S-PER"})
    with pytest.raises(ValueError, match=r"holds an encoder without a head \(BertModel\)"):
        load_crf(applying(crf_run, pretrained))


def test_a_trained_folder_without_label_names_is_refused(crf_run: FinishedRun, tmp_path: Path) -> None:
    folder = tmp_path / "nameless"
    shutil.copytree(crf_run.folder, folder)
    edit_json(folder / "config.json", id2label={str(i): f"LABEL_{i}" for i in range(10)})
    with pytest.raises(ValueError, match="does not name its 10 labels in id2label"):
        load_crf(applying(crf_run, folder))


def test_a_checkpoint_can_be_named_instead(crf_run: FinishedRun) -> None:
    checkpoint = crf_run.folder / "checkpoint-16"
    _, model, _ = load_model_and_tokenizer(applying(crf_run), BertCrfForNer, source=str(checkpoint))
    weights = load_file(checkpoint / "model.safetensors")
    assert torch.equal(model.state_dict()["crf.transitions"], weights["crf.transitions"])


def test_windows_keep_to_positions_that_training_from_scratch_has_seen(crf_args: Run) -> None:
    args = replace(crf_args, train_max_seq_length=24, eval_max_seq_length=60)
    args, model, tokenizer = load_model_and_tokenizer(args, BertCrfForNer)
    assert (args.train_max_seq_length, args.eval_max_seq_length) == (24, 24)
    save_model_folder(args.folder.path, args.settings, model, tokenizer)
    later = crf(output_dir=str(args.folder.path), do_eval=True, eval_max_seq_length=60)
    later, *_ = load_model_and_tokenizer(later, BertCrfForNer)
    assert later.eval_max_seq_length == 24


def test_do_lower_case_that_a_tokenizer_does_not_know_is_said(
    roberta: PreTrainedTokenizerBase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roberta.save_pretrained(tmp_path)
    load_tokenizer(ModelSettings(do_lower_case=True), str(tmp_path), RobertaConfig())
    assert "--do_lower_case has no effect" in caplog.text


@pytest.mark.parametrize("name", ["../nowhere", "./nowhere", "/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(crf_args: Run, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^--model_name_or_path {name}: no such folder: \S*$"):
        load_crf(replace(crf_args, model_name_or_path=name))


@pytest.mark.parametrize("name", ["models/bert-base-chines", "no-such-encoder"])
def test_a_name_that_may_be_of_the_hub_is_looked_for_in_both_places(
    crf_args: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "models" / "bert-base-chinese").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"^{name}: no such folder: {tmp_path / name}") as error:
        load_crf(replace(crf_args, model_name_or_path=name))
    hint = f"; similar: {tmp_path / 'models' / 'bert-base-chinese'}"
    assert (hint in str(error.value)) == name.startswith("models")
    assert "on huggingface.co: not in the local cache, and HF_HUB_OFFLINE is set" in str(error.value)
    assert "name a folder with config.json, weights and tokenizer" in str(error.value)
    assert len(str(error.value)) < 500


def test_a_config_that_is_none_is_named(crf_args: Run, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Anna B-PER\n")
    with pytest.raises(ValueError, match=r"train\.txt is not the config of an encoder: Expecting value"):
        load_crf(replace(crf_args, config_name=str(tmp_path / "train.txt")))
