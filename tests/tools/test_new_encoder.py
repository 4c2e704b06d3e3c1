"""New encoders: without weights, and with layers of trained ones."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, DistilBertConfig, PreTrainedModel

from tools.new_encoder import keep_layers, main, write_encoder


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "my_vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nanna\nAnna\n", "utf-8")
    return path


def call(monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["new_encoder.py", *argv])
    main()


def test_it_writes_config_and_tokenizer_and_no_weights(
    vocab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "encoder"
    sizes = ("--layers=3", "--width=128", "--max_positions=77")
    call(monkeypatch, f"--vocab={vocab}", f"--output_dir={folder}", *sizes)
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("bert", 3, 128)
    assert (config.num_attention_heads, config.intermediate_size) == (2, 512)
    assert (config.vocab_size, config.max_position_embeddings) == (7, 77)
    assert not list(folder.glob("*.safetensors")) + list(folder.glob("*.bin"))
    assert "--from_scratch" in capsys.readouterr().out


@pytest.mark.parametrize(("cased", "pieces"), [(False, ["anna"]), (True, ["Anna"])])
def test_its_tokenizer_keeps_case_or_not(vocab: Path, tmp_path: Path, cased: bool, pieces: list[str]) -> None:
    write_encoder(tmp_path / "encoder", vocab, layers=1, width=64, cased=cased)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "encoder")
    assert tokenizer.tokenize("Anna") == pieces
    assert tokenizer("anna")["input_ids"] == [2, 5, 3]


def trained_encoder(kind: str, folder: Path, vocab: Path) -> PreTrainedModel:
    """An encoder of four layers with weights."""
    write_encoder(folder, vocab, layers=4, width=64)
    config = AutoConfig.from_pretrained(folder)
    if kind == "distilbert":
        config = DistilBertConfig(vocab_size=config.vocab_size, n_layers=4, dim=64, n_heads=1, hidden_dim=64)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_lowest_layers_of_a_trained_encoder_compute_what_they_did(kind: str, vocab: Path, tmp_path: Path) -> None:
    model, ids = trained_encoder(kind, tmp_path / "encoder", vocab), torch.tensor([[2, 5, 6, 3]])
    keep_layers(str(tmp_path / "encoder"), tmp_path / "student", [0, 1, 2])
    student = AutoModel.from_pretrained(tmp_path / "student").eval()
    assert student.config.num_hidden_layers == 3
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True).hidden_states[3]
        torch.testing.assert_close(student(ids).last_hidden_state, expected)
    assert AutoTokenizer.from_pretrained(tmp_path / "student")("anna")["input_ids"] == [2, 5, 3]


def test_layers_come_in_the_order_given(
    vocab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder: Any = trained_encoder("bert", tmp_path / "encoder", vocab)
    folder = tmp_path / "student"
    call(monkeypatch, f"--encoder={tmp_path / 'encoder'}", f"--output_dir={folder}", "--keep_layers", "3", "1")
    kept: Any = AutoModel.from_pretrained(folder).encoder.layer
    for layer, number in zip(kept, (3, 1), strict=True):
        torch.testing.assert_close(layer.state_dict(), encoder.encoder.layer[number].state_dict())
    assert "layers 3 1 of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep_layers", "0", "4"], "there is no layer 4: the encoder has 4, numbered from 0"),
        (["--keep_layers", "1", "1"], "a layer is named twice"),
        ([], "--encoder and --keep_layers belong together"),
    ],
)
def test_layers_that_cannot_be_kept_are_refused(
    vocab: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained_encoder("bert", tmp_path / "encoder", vocab)
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--encoder={tmp_path / 'encoder'}", f"--output_dir={tmp_path / 'student'}", *arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--vocab=none.txt", "none.txt: there is no such file"),
        ("--width=100", "--width 100"),
        ("--width=0", "--width 0: must be a whole number, at least 1"),
        ("--layers=-1", "--layers -1: must be a whole number, at least 1"),
        ("--max_positions=0", "--max_positions 0: must be a whole number, at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    vocab: Path,
    tmp_path: Path,
    argument: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--vocab={vocab}", f"--output_dir={tmp_path / 'encoder'}", argument)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "my_vocab.txt: no word pieces in this file"),
        (b"[UNK]\nM\xfcller\n", "my_vocab.txt:2: not UTF-8"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(
    vocab: Path,
    content: bytes,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vocab.write_bytes(content)
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--vocab={vocab}", f"--output_dir={tmp_path / 'encoder'}")
    assert message in capsys.readouterr().err


def test_a_piece_that_is_listed_twice_leaves_no_id_without_embedding(
    vocab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab.write_text(vocab.read_text("utf-8") + "twice\ntwice\nlast\n", "utf-8")
    call(monkeypatch, f"--vocab={vocab}", f"--output_dir={tmp_path / 'encoder'}")
    ids = AutoTokenizer.from_pretrained(tmp_path / "encoder").get_vocab()
    assert max(ids["twice"], ids["last"]) < AutoConfig.from_pretrained(tmp_path / "encoder").vocab_size


@pytest.mark.parametrize("weights", ["encoder", "encoder/model.safetensors"])
def test_nothing_is_written_over_weights_or_a_file(
    vocab: Path, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / weights).parent.mkdir(exist_ok=True)
    (tmp_path / weights).touch()
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--vocab={vocab}", f"--output_dir={tmp_path / 'encoder'}")
    assert "is a file, or already has weights" in capsys.readouterr().err
    assert not (tmp_path / "encoder" / "config.json").exists()
